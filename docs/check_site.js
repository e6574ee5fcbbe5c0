// What docs/check_site.py asks of a page in the browser.
({
  // What is drawn, and how wide and how large; `smallest`: pixels of a label that can be read.
  look: async smallest => {
    if (window.MathJax?.startup) await MathJax.startup.promise;
    await document.fonts.ready;
    const all = selector => [...document.querySelectorAll(selector)];
    const root = document.documentElement, formulas = all("span.math, div.math");
    const scrolls = e =>
      e !== document.body && ["auto", "scroll", "hidden"].includes(getComputedStyle(e).overflowX);
    const inside = e => e !== null && (scrolls(e) || inside(e.parentElement));
    const wide = all("body *").filter(
      e => e.getBoundingClientRect().right > root.clientWidth + 1 && !inside(e));
    const small = [], plain = [];
    const quoted = "code, pre, kbd, svg, script, style, .math, .sig, .verdict, nav, aside, footer";
    const ascii = new RegExp([
      /[\w)|]\^[-{\w(]/, /_\{/, /(^|\s)(<=|>=|>>|<<)\s/, /\bgrad [a-zA-Z]\b/,
      /(^|[^\w-])[A-Za-z]_[a-z0-9]\b/, /\b(phi|theta|lambda|alpha|mu|psi|eps)(_\w|\b\s*[=<>])/,
    ].map(r => r.source).join("|"));
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) {
      const found = texts.currentNode.data.match(ascii);
      if (found && !texts.currentNode.parentElement.closest(quoted))
        plain.push(texts.currentNode.data.slice(Math.max(0, found.index - 25), found.index + 25));
    }
    // a font's size on the screen; matplotlib draws a label as outlines of 100 units
    const scale = e => {
      const m = e.getScreenCTM();
      return Math.sqrt(Math.abs(m.a * m.d - m.b * m.c));
    };
    const measure = (drawing, name) => {
      const words = [...drawing.querySelectorAll("text")];
      const outlines = [...drawing.querySelectorAll("g[id^=text_] > g")];
      const sizes = [
        ...words.map(e => parseFloat(getComputedStyle(e).fontSize) * scale(e)),
        ...outlines.map(e => 100 * scale(e)),
      ];
      const least = Math.min(...sizes.filter(size => size > 0));
      if (least < smallest - 0.05) small.push(`${name} ${least.toFixed(1)}`);
    };
    const seen = {
      formulas: formulas.length,
      drawn: formulas.filter(e => e.querySelector("mjx-container")).length,
      wrong: all("mjx-merror, [data-mjx-error]").map(e => e.dataset.mjxError || e.textContent),
      empty: [...document.images]
        .filter(i => i.complete && !i.naturalWidth && i.loading !== "lazy").map(i => i.src),
      links: all("a[href]").map(a => a.getAttribute("href")),
      ids: all("[id], a[name]").map(e => e.id || e.name),
      wide: root.scrollWidth <= root.clientWidth + 1 ? "" :
        wide.slice(0, 3).map(e => e.tagName + "." + e.className).join(" ") || "something",
      tall: root.scrollHeight,
      small,
      plain,
    };
    for (const drawing of all("svg:not(mjx-container svg)")) measure(drawing, "a drawing");
    for (const image of document.images) {
      const address = new URL(image.src), width = image.getBoundingClientRect().width;
      if (!address.pathname.endsWith(".svg") || address.origin !== location.origin || !width)
        continue;
      const answer = await fetch(address);
      if (!answer.ok) continue;
      const host = document.body.appendChild(document.createElement("div"));
      host.attachShadow({mode: "open"}).innerHTML = await answer.text();
      const drawing = host.shadowRoot.querySelector("svg");
      drawing.setAttribute("width", width);
      drawing.removeAttribute("height");
      measure(drawing, address.pathname.split("/").pop());
      host.remove();
    }
    return seen;
  },

  // Whether the ledger's filter shows the chosen rows alone, and then all again.
  filter: () => {
    const select = document.getElementById("ledger-filter").elements.printed;
    const rows = [...document.querySelectorAll("table.ledger tbody tr")];
    const choose = word => {
      select.value = word;
      select.dispatchEvent(new Event("change", {bubbles: true}));
      return rows.filter(row => row.offsetParent !== null);
    };
    const word = select.options[select.options.length - 1].value, shown = choose(word);
    const right = shown.every(row => row.cells[2].textContent.trim() === word);
    return shown.length > 0 && right && choose("").length === rows.length;
  },
})
