// Debian's Chromium without a window, which asks nothing of the network by itself.

const { chromium } = require('playwright-core');

// `more` are arguments that a script needs besides.
exports.launch = (...more) => chromium.launch({
  executablePath: '/usr/bin/chromium',
  args: [
    '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
    '--disable-component-update', '--disable-sync', ...more,
  ],
});
