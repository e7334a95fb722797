// Shows changes of a brand's policies on its own pages:
//   <script src=".../notices/banner.js" data-brand="acme" data-placement="homepage" defer></script>
// data-lang asks for a language other than that of the page. Whatever fails, nothing is shown.
(function () {
'use strict';
var me = document.currentScript, root = document.documentElement;
if (!me || !me.dataset.brand || !window.fetch) return;
var words = 'WORDS';
var lang = me.dataset.lang || root.lang || 'en';
var own = lang.slice(0, 2).toLowerCase();
if (!words[own]) own = 'en';
var w = words[own];
function el(name, text, style, parent) {
  var e = document.createElement(name);
  if (text) e.textContent = text;
  // Set as properties: a Content-Security-Policy that forbids inline styles allows these.
  if (style) e.style.cssText = style;
  if (parent) parent.appendChild(e);
  return e;
}
function day(at) {
  return new Intl.DateTimeFormat(own === 'en' ? 'en-GB' : own, { dateStyle: 'long', timeZone: 'UTC' }).format(new Date(at));
}
// The beginning of a text, up to the end of a word.
function brief(text) {
  text = text.replace(/\s+/g, ' ').trim();
  var start = Array.from(text).slice(0, 200).join('');
  return start === text ? text : start.replace(/\s\S*$/, '') + '\u2026';
}
function show(all) {
  var place = me.dataset.placement;
  var some = all.filter(function (n) { return place ? n.placements.indexOf(place) >= 0 : n.placements.length; });
  if (!some.length) return;
  var box = el('section', '', 'all:initial;display:block;box-sizing:border-box;max-height:60vh;overflow:auto;color-scheme:light dark;background:Canvas;color:CanvasText;border-bottom:2px solid;padding:.75rem 1rem;font:1rem/1.5 system-ui,sans-serif;overflow-wrap:anywhere');
  box.setAttribute('role', 'region');
  box.setAttribute('aria-label', w[0]);
  box.lang = own;
  box.dir = own === 'ar' ? 'rtl' : 'ltr';
  var gap = 'margin:0 0 .5rem';
  some.forEach(function (n) {
    var ahead = Date.parse(n.effective_at) > Date.now();
    var said = w[ahead ? 1 : 2];
    said = said.replace('{title}', function () { return '\u2068' + n.title + '\u2069'; }).replace('{date}', day(n.effective_date));
    var line = el('p', '', gap, box);
    el('b', said + ' ', '', line);
    // Of several each has one line.
    if (some.length < 2) {
      line.style.margin = 0;
      el('p', brief(n.summary), 'margin:0', box).dir = 'auto';
      line = el('p', '', gap, box);
    }
    if (n.asks === 'use' || n.asks === 'approval' && ahead) el('span', w[n.asks === 'use' ? 6 : 5] + ' ', '', line);
    el('a', w[3], 'color:LinkText;display:inline-block;padding:.125rem 0', line).href = n.changes_url;
  });
  var b = el('button', w[4], 'font:inherit;color:inherit;background:transparent;border:1px solid;border-radius:.5rem;padding:.25rem 1rem;min-height:2rem;cursor:pointer', box);
  b.type = 'button';
  b.onclick = function () { box.remove(); };
  document.body.insertBefore(box, document.body.firstChild);
}
fetch(new URL('current.json?brand=' + encodeURIComponent(me.dataset.brand) + '&lang=' + encodeURIComponent(lang), me.src), { credentials: 'omit' })
  .then(function (r) { return r.json(); })
  .then(function (j) { show(j.notices); })
  .catch(function () {});
})();
