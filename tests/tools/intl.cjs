// Writes days, numbers and plural forms as ICU has them, through Intl: [{ locale, days, numbers }] in, the same with words out.
const words = ({ locale, days, numbers }) => {
    const day = new Intl.DateTimeFormat(locale, { dateStyle: 'long', calendar: 'gregory', timeZone: 'UTC' });
    const number = new Intl.NumberFormat(locale);
    const plural = new Intl.PluralRules(locale);
    return {
        locale,
        days: days.map(one => day.format(new Date(one))),
        numbers: numbers.map(one => [plural.select(one), number.format(one)]),
    };
};

let input = '';
process.stdin.on('data', chunk => (input += chunk));
process.stdin.on('end', () => process.stdout.write(JSON.stringify(JSON.parse(input).map(words))));
