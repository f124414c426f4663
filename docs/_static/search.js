// The excerpts of a search show words; a formula in them would be LaTeX source.
if (typeof Search !== "undefined" && Search.htmlToText) {
  const toText = Search.htmlToText;
  Search.htmlToText = (html, anchor) => {
    const page = new DOMParser().parseFromString(html, "text/html");
    page.querySelectorAll(".math").forEach((formula) => formula.replaceWith("…"));
    return toText(page.documentElement.outerHTML, anchor);
  };
}
