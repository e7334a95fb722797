// Judges in Chromium, without scripts as in a mail program, whether a person sees a link in a message: it is laid out, its
// computed style hides nothing, a pointer meets it, one can scroll to it, and what it paints differs from what lies behind
// it by a contrast of 4.5 (WCAG 2.2, 1.4.3), measured on the pixels. Narrow and wide, light and dark.
//
// Reads [{name, html, url}] on standard input, and as first argument how many of the views to take; writes [{name, seen, why}]: `why` says for each view why no link is seen.
const { launch } = require("./chromium.cjs");

const VIEWS = [
  { width: 320, height: 640, scheme: "light" },
  { width: 1000, height: 700, scheme: "dark" },
  { width: 1000, height: 700, scheme: "light" },
];

// In the page: what keeps this link from being seen, or where it stands.
function look({ url, number }) {
  const links = [...document.querySelectorAll("a[href]")].filter((a) => a.getAttribute("href") === url);
  if (number >= links.length) return null;
  const a = links[number];
  if (a.innerText.trim() === "") return { why: "no text" };
  a.scrollIntoView({ block: "center" });
  let opacity = 1;
  for (let e = a; e; e = e.parentElement) {
    const style = getComputedStyle(e);
    if (style.display === "none") return { why: `display of <${e.localName}>` };
    opacity *= Number(style.opacity);
  }
  const style = getComputedStyle(a);
  if (style.visibility !== "visible") return { why: "visibility" };
  if (opacity < 0.6) return { why: "opacity" };
  if (parseFloat(style.fontSize) < 9) return { why: "font-size" };
  const rect = [...a.getClientRects()].find((r) => r.width >= 8 && r.height >= 8);
  if (!rect) return { why: "no box" };
  const roots = [document.documentElement, document.body].map((e) => getComputedStyle(e).overflowY);
  if ((window.scrollY > 0 || window.scrollX > 0) && roots.some((o) => o === "hidden" || o === "clip")) {
    return { why: "one cannot scroll to it" };
  }
  const [x, y] = [rect.left + rect.width / 2, rect.top + rect.height / 2];
  if (x < 0 || y < 0 || x > innerWidth || y > innerHeight) return { why: "outside of the window" };
  const hit = document.elementFromPoint(x, y);
  if (!hit || !(a === hit || a.contains(hit))) return { why: `covered by <${hit && hit.localName}>` };
  const clip = { x: Math.max(0, rect.left), y: Math.max(0, rect.top), width: rect.width, height: rect.height };
  clip.width = Math.min(clip.width, innerWidth - clip.x);
  clip.height = Math.min(clip.height, innerHeight - clip.y);
  return { clip };
}

// In a page of our own: the greatest contrast between a pixel with the link and the same pixel without it.
async function compare([withLink, without]) {
  const pixels = async (png) => {
    const image = await createImageBitmap(await (await fetch(`data:image/png;base64,${png}`)).blob());
    const context = new OffscreenCanvas(image.width, image.height).getContext("2d");
    context.drawImage(image, 0, 0);
    return context.getImageData(0, 0, image.width, image.height).data;
  };
  const luminance = (data, at) => {
    const [r, g, b] = [0, 1, 2].map((n) => {
      const c = data[at + n] / 255;
      return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const [a, b] = [await pixels(withLink), await pixels(without)];
  let [painted, contrast] = [0, 1];
  for (let at = 0; at < a.length; at += 4) {
    const [one, other] = [luminance(a, at), luminance(b, at)];
    const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    if (ratio >= 2) painted += 1;
    contrast = Math.max(contrast, ratio);
  }
  return { painted, contrast };
}

async function main() {
  const messages = JSON.parse(require("fs").readFileSync(0, "utf8"));
  const browser = await launch();
  const lab = await (await browser.newContext()).newPage();
  const report = messages.map(({ name }) => ({ name, seen: true, why: [] }));
  for (const { width, height, scheme } of VIEWS.slice(0, Number(process.argv[2]))) {
    const context = await browser.newContext({
      viewport: { width, height }, colorScheme: scheme, javaScriptEnabled: false, offline: true,
    });
    const page = await context.newPage();
    for (const [at, { html, url }] of messages.entries()) {
      const source = Buffer.from(html).toString("base64");
      await page.goto(`data:text/html;charset=utf-8;base64,${source}`, { waitUntil: "domcontentloaded" });
      const why = [];
      let seen = false;
      for (let number = 0; !seen; number += 1) {
        const found = await page.evaluate(look, { url, number });
        if (found === null) break;
        if (found.why) {
          why.push(found.why);
          continue;
        }
        const shoot = async () => (await page.screenshot({ clip: found.clip, animations: "disabled" })).toString("base64");
        const withLink = await shoot();
        await page.evaluate(({ url, number }) => {
          const a = [...document.querySelectorAll("a[href]")].filter((a) => a.getAttribute("href") === url)[number];
          a.style.setProperty("opacity", "0", "important");
        }, { url, number });
        const { painted, contrast } = await lab.evaluate(compare, [withLink, await shoot()]);
        seen = painted >= 20 && contrast >= 4.5;
        if (!seen) why.push(`contrast ${contrast.toFixed(2)} on ${painted} pixels`);
      }
      if (!seen) {
        report[at].seen = false;
        report[at].why.push(`${width} px, ${scheme}: ${why.join(", ") || "no such link"}`);
      }
    }
    await context.close();
  }
  await browser.close();
  process.stdout.write(JSON.stringify(report));
}

main().catch((error) => {
  process.stderr.write(`${error.stack}\n`);
  process.exit(1);
});
