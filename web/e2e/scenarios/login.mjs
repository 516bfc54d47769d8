// The way in.

export default {
  async 'login leads on to where one wanted to go'({ page, world, shoot, logIn }) {
    await page.goto(`${world.url}/fleet?status=offline`)
    await page.waitForURL(/\/login\?next=/)
    await shoot('login')
    await logIn('qfa_wrong')
    await page.getByText('This token is not valid.').waitFor()
    await shoot('login-wrong')
    await logIn()
    await page.waitForURL(`${world.url}/fleet?status=offline`)
    await page.goto(`${world.url}/`)
    await page.getByText('No agents yet').waitFor()
    await shoot('overview-first')
    await page.goto(`${world.url}/nothing/here`)
    await page.getByText('There is nothing here').waitFor()
  },
}
