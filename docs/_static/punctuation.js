// A formula and the comma behind it stay on one line: to a browser each formula is a box after which it may break.
document.addEventListener("DOMContentLoaded", () => {
  for (const formula of document.querySelectorAll("span.math")) {
    const next = formula.nextSibling;
    const sign = next?.nodeType === Node.TEXT_NODE && next.data.match(/^[^\s(\u2013]+/);
    if (!sign || formula.closest("h1, h2, h3, .statement")) continue;
    const together = document.createElement("span");
    together.style.whiteSpace = "nowrap";
    formula.before(together);
    together.append(formula, sign[0]);
    next.data = next.data.slice(sign[0].length);
  }
});
