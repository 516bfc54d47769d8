import { createI18n, type Composer } from 'vue-i18n'
import { en } from './en'
import { zh } from './zh'

export const i18n = createI18n({ legacy: false, locale: 'en', fallbackLocale: 'en', messages: { en, zh } as never, missingWarn: false, fallbackWarn: false })

/** What useI18n gives, for components of which there are hundreds: useI18n has a price for each. */
export const global = i18n.global as unknown as Composer
