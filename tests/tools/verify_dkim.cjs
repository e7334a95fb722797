// Verifies DKIM signatures with npm's mailauth.
//
// In: {"dns": {name: text}, "messages": [base64]}. Out: for each message a list of its signatures from the top, each with
// `pass`, `why`, `domain`, `selector` and `aligned`, the domain aligned with From.

const { dkimVerify } = require('mailauth/lib/dkim/verify');

const asked = JSON.parse(require('node:fs').readFileSync(0, 'utf8'));

async function resolver(name, type) {
  const text = asked.dns[name.toLowerCase()];
  if (type !== 'TXT' || !text) {
    throw Object.assign(new Error(`no ${type} of ${name}`), { code: 'ENOTFOUND' });
  }
  return [[text]];
}

async function verify(message) {
  const { results } = await dkimVerify(Buffer.from(message, 'base64'), { resolver });
  return results.filter((one) => one.signingDomain).map((one) => ({
    pass: one.status.result === 'pass' && one.signatureTimeValid,
    why: one.status.comment || one.status.result,
    domain: one.signingDomain,
    selector: one.selector,
    aligned: one.status.aligned || null,
  }));
}

(async () => {
  const judged = [];
  for (const message of asked.messages) judged.push(await verify(message));
  process.stdout.write(JSON.stringify(judged));
})();
