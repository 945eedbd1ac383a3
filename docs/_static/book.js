// The front page's point walks once around the latent plane, for less than five seconds, unless its reader takes it
// over or has asked for little motion.
window.addEventListener("load", () => {
  const plane = document.querySelector(".alive .cmog-plane");
  if (!plane || matchMedia("(prefers-reduced-motion: reduce)").matches) return;
  const way = [["Right", 4], ["Up", 4], ["Left", 8], ["Down", 8], ["Right", 4], ["Up", 4]];
  const steps = way.flatMap(([side, times]) => Array(times).fill(`Arrow${side}`));
  const walk = setInterval(() => {
    plane.dispatchEvent(new KeyboardEvent("keydown", { key: steps.shift() }));
    if (!steps.length) clearInterval(walk);
  }, 140);
  for (const taken of ["pointerdown", "keydown"]) {
    plane.addEventListener(taken, (event) => { if (event.isTrusted) clearInterval(walk); });
  }
});

// A formula that is wider than the page scrolls, so it must be within reach of the keys.
window.addEventListener("load", () => window.MathJax?.startup?.promise.then(() => {
  for (const formula of document.querySelectorAll("mjx-container, .math, .sheet-part > p")) {
    if (formula.scrollWidth > formula.clientWidth) formula.tabIndex = 0;
  }
}));
