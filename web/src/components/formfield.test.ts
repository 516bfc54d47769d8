import { mount } from '@vue/test-utils'
import { expect, it } from 'vitest'
import FormField from './FormField.vue'

const field = (props: object) => mount(FormField, { props: { id: 'x', label: 'Name', ...props }, slots: { default: '<input id="x" />' } })

it('FormField names what is typed into, and says a hint until something is wrong', () => {
  expect(field({}).get('label').attributes('for')).toBe('x')
  expect(field({ hint: 'lower case' }).text()).toBe('Namelower case')
  const wrong = field({ hint: 'lower case', problem: 'is taken' })
  expect(wrong.get('[role=alert]').text()).toBe('is taken')
  expect(wrong.text()).not.toContain('lower case')
  expect(wrong.classes()).toEqual(['wrong'])
})
