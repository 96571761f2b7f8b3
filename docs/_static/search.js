/* Sphinx's search finds pages. Here it leads to the section that has the words. */
"use strict";

/* A section whose title has the words comes before any page. */
Scorer.score = ([, , anchor, , score]) => score + (anchor ? Scorer.title : 0);

{
  const ABOUT = ".headerlink, .page-box, .sphx-glr-download-link-note";
  const summarize = Search.makeSearchSummary;

  /* Return what a section has, without the sections in it. */
  const own = (section) => {
    const copy = section.cloneNode(true);
    for (const inner of copy.querySelectorAll("section")) inner.remove();
    return copy;
  };

  /* Have the link of a result lead to a section, unless another result does. */
  const lead = (link, section) => {
    const place = `${link.getAttribute("href")}#${section.id}`;
    if (document.querySelector(`#search-results a[href="${place}"]`)) return;
    link.setAttribute("href", place);
    link.append(` > ${section.querySelector("h2, h3, h4").textContent.trim()}`);
  };

  /* Sphinx takes all of <main>, menus included, for the text of a page. */
  Search.makeSearchSummary = (html, words, anchor) => {
    const page = new DOMParser().parseFromString(html, "text/html");
    for (const part of page.querySelectorAll(ABOUT)) part.remove();
    const sections = [...page.querySelectorAll("article section")];
    const holds = (section) => {
      const text = own(section).textContent.toLowerCase();
      return [...words].every((word) => text.includes(word));
    };
    const found = anchor ? page.querySelector(anchor) : sections.find(holds);
    const text = found ? own(found) : page.querySelector("article");
    const main = `<div role="main">${text.innerHTML}</div>`;
    const summary = summarize(main, words, "");
    /* The first section is the page. When this returns, the result gets its summary. */
    if (summary && found && !anchor && found !== sections[0])
      queueMicrotask(() => lead(summary.closest("li").querySelector("a"), found));
    return summary;
  };
}
