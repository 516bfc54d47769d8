import type { Messages } from './en'

export const zh: Messages = {
  loading: '正在加载',
  unit: { d: '天', h: '小时', min: '分钟', s: '秒' },
  nav: {
    main: '页面', skip: '跳到正文', overview: '总览', releases: '发布', projects: '项目', schedules: '计划', system: '系统', fleet: '主机', commands: '命令', temporal: 'Temporal',
    fold: '收起菜单', language: '语言', user: '已登录：{name}', version: '服务器 {v}', logout: '退出登录',
  },
  theme: { title: '主题：{now}', light: '浅色', dark: '深色', system: '跟随系统' },
  live: {
    off: '未连接', connecting: '正在连接', live: '实时', lost: '正在重连',
    banner: '无法连接服务器，当前内容可能已过时；服务器恢复后会自动继续。',
    renewed: '服务器已更新。', reload: '加载新版控制台',
  },
  error: { title: '操作未成功', unreachable: '无法连接服务器。', retry: '重试' },
  copy: { title: '复制 {value}', done: '已复制' },
  confirm: { reason: '原因', reasonHint: '会一并保存，便于日后查询', back: '返回' },
  counts: { done: '完成', left: '剩余' },
  state: {
    starting: '启动中', running: '执行中', paused: '已暂停', aborting: '停止中', rolling_back: '回滚中', succeeded: '成功', partial: '部分完成',
    failed: '失败', aborted: '已中止', rolled_back: '已回滚', pending: '等待', unknown: '未知', offline: '离线', cancelled: '已取消',
    skipped: '已跳过', rollback_failed: '回滚失败', refused: '被拒绝', timeout: '超时', cancelling: '取消中', completed: '完成',
    executing: '执行中', online: '在线', reconnecting: '重连中', installed: '已安装',
  },
  phase: { plan: '计划中', canary: '金丝雀', soak: '观察中', promotion: '等待放行', wave: '第 {n} 批', rollback: '回滚中', done: '已结束' },
  step: { canary: '金丝雀 {share}', soak: '观察 {time}', promotion: '放行', wave: '第 {n} 批', rollback: '回滚', hosts: '{n} 台' },
  login: {
    token: 'API 令牌', submit: '登录', hint: '首个令牌在服务器数据目录的文件中：', expired: '登录已失效。重新登录后回到原来的页面。',
    wrong: '令牌无效。', many: '失败次数过多，请稍候。',
  },
  nowhere: { title: '这里没有内容', text: '地址可能有误，或内容已被删除。' },
  palette: {
    title: '命令面板', hint: '搜索或跳转', placeholder: '搜索发布、主机、页面', none: '没有结果', go: '前往', do: '操作',
    offline: '离线的主机', theme: '切换浅色与深色',
  },
  overview: {
    title: '总览', fine: '目前一切正常。', first: '还没有主机', firstText: '每台主机上的 agent 负责执行发布和命令。生成令牌，然后在主机上粘贴该命令。',
    unhealthy: '服务器状态异常：{checks}', failing: '{n} 个进行中的发布有失败的主机', waiting: '{n} 个发布等待人工处理', failed: '过去 24 小时有 {n} 个发布未成功',
    offline: '{n} 台主机离线', rolling: '进行中的发布', jobs: '执行中的命令', online: '在线主机',
    now: '正在发布', nothing: '当前没有进行中的发布。', commands: '执行中的命令', recentFailed: '过去 24 小时未成功', recentDone: '过去 24 小时成功', all: '全部',
  },
  join: {
    title: '接入主机', uses: '台数', hours: '有效小时数', pattern: '匹配的 id', make: '生成令牌', again: '再生成一个', paste: '在已有 quic-client 的主机上粘贴：',
    copy: '复制', holds: '可用于 {n} 台，失效于', once: '此令牌不会再次显示。',
  },
  list: { newer: '较新', older: '较旧', before: '上一页', next: '下一页' },
  releases: {
    project: '项目', anyStatus: '任意状态', active: '仅未结束', total: '{n} 个发布', noMatch: '没有匹配的发布', clear: '显示全部',
    none: '还没有发布', noneText: '一次发布把项目的一个版本推到主机上。目前用 quic-ctl 创建：',
  },
  release: {
    title: '发布', uninstall: '卸载', from: '原版本 {version}', to: '到 {version}', started: '开始于', took: '用时 {time}', progress: '进度', budget: '失败额度',
    rate: '{n} 台/秒', left: '约剩 {time}', soakLeft: '还需观察 {time}', waits: '请放行或回滚', hosts: '主机', details: '详情', steps: '步骤',
    gone: '没有这个发布', tab: { log: '日志', hosts: '主机', plan: '计划' },
  },
  newRelease: { title: '' },
  act: {
    promote: '放行', pause: '暂停', resume: '继续', abort: '中止', rollback: '回滚',
    promoteTitle: '放行 {project} {version}', promoteText: '从金丝雀进入后续批次：共 {total} 台，还有 {left} 台。',
    pauseTitle: '暂停 {project} {version}', pauseText: '在继续之前不再启动新的主机。正在执行的 {running} 台会做完。',
    abortTitle: '中止 {project} {version}', abortText: '不再启动新的主机，并停止正在执行的 {running} 台。已变更的 {n} 台保持现状，{left} 台被跳过。中止后不能继续。',
    rollbackTitle: '回滚 {project} 的 {n} 台主机', rollbackText: '已变更的 {n} 台主机恢复{to}之前的版本；尚未开始的 {left} 台被跳过。',
    resumeTitle: '继续 {project} {version}', resumeText: '',
  },
  failures: { title: '失败', none: '没有失败的主机。', more: '还有 {n} 种原因' },
  grid: { label: '{n} 台主机：' },
  targets: {
    find: '主机', any: '任意状态', anyReason: '任意原因', total: '{n} 台', none: '没有匹配的主机', host: '主机', state: '状态', wave: '批次', canary: '金丝雀', before: '原版本',
    took: '用时', ended: '结束', why: '原因',
  },
  host: { none: '该主机不在此次发布中。', exit: '退出码 {code}', agent: '主机页', began: '开始', log: '查看日志' },
  output: { title: '输出', none: '没有输出。', cut: '目前只显示末尾，正在获取其余部分。' },
  plan: {
    targets: '目标', listed: '列出 {n} 台', canary: '金丝雀', canaryText: '{percent} %，观察 {soak}，{promote}放行', noCanary: '无', auto: '自动', manual: '人工',
    waves: '批次', parallel: '并行数', failures: '允许失败', stop: '停止', rollback: '回滚', offline: '离线主机', offline_skip: '跳过', offline_fail: '计为失败', env: '环境变量',
  },
  log: {
    title: '日志', search: '搜索日志', stream: '输出流', all: '全部', allHosts: '全部主机', lines: '{n} 行', following: '跟随中', paused: '已暂停', waiting: '连接中', ended: '完整',
    fresh: '{n} 行新日志', from: '从第 {n} 条记录开始显示。', earlier: '显示更早的', gap: '记录 {range} 已不再保存', none: '没有输出。', noMatch: '没有匹配的行。',
    soon: '主机的输出会显示在这里。', missing: '{n} 台主机的日志尚未完整到达：{hosts}',
  },
  projects: { title: '项目' },
  schemaForm: {
    find: '在 {n} 个字段中查找', onlySet: '只看已设置的', noMatch: '没有匹配的字段。', noneSet: '尚未设置任何字段。', fields: '{n} 个字段', set: '已设置 {n} / {of}', wrong: '未被接受',
    default: '默认值：', required: '必填', clear: '清除', clearField: '清除 {name}', add: '添加', remove: '移除 {what}', up: '将第 {n} 项上移', key: '名称', twice: '重复：{keys}', choose: '默认',
    group: {
      process: '进程', files: '文件', scripts: '脚本与健康检查', source: '仓库', image: '镜像与进程', network: '网络', storage: '存储', rights: '权限与隔离',
      resources: '资源', life: '健康与重启', change: '更新方式', cluster: '集群', workload: '工作负载', labels: '标签与注解', placement: '调度', manifest: '自备清单', apply: '应用方式',
    },
  },
  schedules: { title: '计划' },
  fleet: {
    counts: '在线 {online} / {total}', run: '在 {n} 台主机上执行命令', selector: 'env=prod,os=linux,!maintenance', selectorLabel: '选择器', search: 'id、主机名、地址', status: '状态', any: '全部',
    shown: '{n} 台', saveFilter: '保存此筛选', save: '保存', name: '筛选名称', forget: '删除 {name}', clear: '显示全部', noMatch: '没有匹配的主机', none: '还没有主机',
    noneText: '生成令牌，然后在主机上粘贴该命令。', pickAll: '全选', col: { status: '状态', id: 'Id', host: '主机名', runs: '运行版本', labels: '标签', os: '系统', agent: 'Agent', seen: '最近心跳' },
  },
  agent: {
    gone: '没有这台主机', run: '执行命令', revoke: '吊销', revokeTitle: '吊销 {id}', revokeText: '其证书和会话将立即失效；只有允许替换的令牌才能让它重新接入。',
    runs: '运行的版本', runsNothing: '没有通过发布安装的内容。', is: '基本信息', address: '地址', connected: '连接于', joined: '接入于', details: '详情', history: '历史', facts: '主机信息',
    release: '发布', command: '命令', nothing: '这里还没有发生过任何事', noFacts: '没有上报主机信息',
  },
  installation: { failed: '{version} 失败', unknown: '{version}：结果未知' },
  system: { title: '系统' },
  command: {
    new: '执行命令', total: '{n} 条命令', none: '还没有命令', noneText: '在选择器选中的主机上执行一行 shell，或查询主机信息。', noMatch: '没有匹配的命令', gone: '没有这条命令',
    type: '命令', line: 'Shell 命令行', payload: '参数（JSON）', notObject: '必须是 JSON 对象。', targets: '范围', bySelector: '选择器', byList: 'id 列表', idsHint: 'web-1 web-2 web-3', pickHint: '指定范围：例如选择器 env=prod，或用 * 表示全部主机。',
    hits: '选中 {n} 台', unknown: '{n} 个未知：{ids}', how: '方式', batch: '批处理：关闭页面后继续执行', stream: '流式：关闭页面即取消',
    options: '选项', timeout: '每台超时（秒）', concurrency: '并行数', retries: '重试次数', maxFailures: '允许失败', waitOffline: '等待离线主机', default: '默认', refused: '未被接受',
    run: '执行', runOn: '在 {n} 台上执行', cancel: '取消', cancelTitle: '取消 {n} 台主机上的命令', cancelText: '不再启动新的主机，并停止正在执行的。', retry: '重试失败的', again: '再次执行',
    export: '导出', held: '关闭页面即取消', tab: { results: '结果', log: '日志' }, noResults: '没有结果。', waiting: '主机完成后结果显示在这里，先完成的在前。', close: '关闭',
    kind: { exec_shell: '一行 shell', system_info: '主机概况与负载', system_collect_info: '硬件信息', process_list: '进程列表', container_list: '容器列表', container_logs: '容器日志' },
  },
}
