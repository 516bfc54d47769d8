import { LineChart } from 'echarts/charts'
import { GridComponent, TooltipComponent } from 'echarts/components'
import { connect, init, use, type ECharts } from 'echarts/core'
import { CanvasRenderer } from 'echarts/renderers'
import { clockTime } from './time'

use([LineChart, GridComponent, TooltipComponent, CanvasRenderer])

export interface Line {
  name: string
  /** Of the custom property that holds its colour. */
  color: string
  values: number[]
}

export interface Chart {
  show: (times: number[], lines: Line[], format: (n: number) => string) => void
  resize: () => void
  dispose: () => void
}

/** The shortest span that a chart shows, in ms, so that the first points are no long line. */
const shortest = 5 * 60_000

/** A chart over time on a canvas. Those of a group show the same moment beside the pointer. */
export function openChart(into: HTMLElement, group: string): Chart {
  // It empties its element by way of HTML, which our policy forbids even where there is none.
  Object.defineProperty(into, 'innerHTML', { configurable: true, get: () => '', set: () => into.replaceChildren() })
  const chart: ECharts = init(into, undefined, { renderer: 'canvas' })
  chart.group = group
  connect(group)
  return {
    show(times, lines, format) {
      const style = getComputedStyle(document.documentElement)
      const c = (name: string) => style.getPropertyValue(name).trim()
      const font = { color: c('--c-quiet'), fontSize: 11, fontFamily: style.getPropertyValue('--sans') }
      const highest = Math.max(0, ...lines.flatMap((l) => l.values))
      const last = times.at(-1) ?? Date.now()
      chart.setOption({
        animation: false,
        grid: { left: 56, right: 10, top: 10, bottom: 22 },
        tooltip: {
          trigger: 'axis', renderMode: 'richText', confine: true, backgroundColor: c('--c-raised'), borderColor: c('--c-line'), padding: [4, 8], textStyle: { ...font, color: c('--c-text'), fontSize: 12 },
          axisPointer: { lineStyle: { color: c('--c-quiet') } },
          formatter: (points: { value: [number, number]; seriesName: string }[]) =>
            [clockTime(points[0]!.value[0]), ...points.map((p) => `${format(p.value[1])} ${p.seriesName}`)].join('\n'),
        },
        xAxis: { type: 'time', min: Math.min(times[0] ?? last, last - shortest), max: last, axisLine: { lineStyle: { color: c('--c-line') } }, axisTick: { show: false }, splitLine: { show: false }, splitNumber: 4,
          axisLabel: { ...font, hideOverlap: true, formatter: (at: number) => clockTime(at).slice(0, 5) } },
        yAxis: { type: 'value', min: 0, max: highest > 0 ? undefined : 1, splitNumber: highest > 0 ? 2 : 1, axisLabel: { ...font, formatter: (n: number) => format(n) }, splitLine: { lineStyle: { color: c('--c-line-soft') } } },
        series: lines.map((l, i) => ({
          type: 'line', name: l.name, data: times.map((at, k) => [at, l.values[k] ?? 0]), showSymbol: times.length === 1, symbolSize: 4, lineStyle: { width: 1.5, type: i === 0 ? 'solid' : 'dashed' }, itemStyle: { color: c(l.color) },
          areaStyle: i === 0 ? { opacity: 0.1 } : undefined, emphasis: { disabled: true },
        })),
      }, { notMerge: true })
    },
    resize: () => chart.resize(),
    dispose: () => chart.dispose(),
  }
}
