// Reads messages with npm's mailparser: a JSON array of base64 in, a JSON array of what each says out.
const { domainToASCII } = require('node:url');
const { simpleParser } = require('mailparser');

// mailparser shows domains as people write them; A-labels again, to be compared.
const wire = address => address.replace(/[^@]*$/, domain => domainToASCII(domain));
const people = field => (field ? field.value.map(one => [one.name, wire(one.address)]) : []);

const read = async raw => {
    const options = { skipHtmlToText: true, skipTextToHtml: true, skipTextLinks: true, skipImageLinks: true };
    const mail = await simpleParser(Buffer.from(raw, 'base64'), options);
    return {
        names: mail.headerLines.map(line => line.key).sort(),
        subject: mail.subject ?? '',
        from: people(mail.from),
        to: people(mail.to),
        reply_to: people(mail.replyTo),
        date: mail.date.getTime() / 1000,
        message_id: mail.messageId,
        text: mail.text,
        html: mail.html,
        attachments: mail.attachments.length,
    };
};

let input = '';
process.stdin.on('data', chunk => (input += chunk));
process.stdin.on('end', async () => {
    const said = [];
    for (const one of JSON.parse(input)) said.push(await read(one));
    process.stdout.write(JSON.stringify(said));
});
