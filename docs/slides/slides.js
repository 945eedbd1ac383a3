// A slide is 1280 × 720. What is taller is shown smaller, and never scrolls.
const HEIGHT = 700;
const WIDTH = 1200;

Reveal.initialize({
  width: 1280, height: 720, margin: 0, center: false, hash: true, controls: true, progress: true, slideNumber: "c/t",
  transition: matchMedia("(prefers-reduced-motion: reduce)").matches ? "none" : "slide", plugins: [RevealNotes],
});

function fit(slide) {
  if (!slide || slide.dataset.fitted || slide.querySelector(":scope > section")) return;
  const sheet = slide.querySelector(":scope > .fit") ?? document.createElement("div");
  if (!sheet.className) {
    sheet.className = "fit";
    sheet.append(...slide.childNodes);
    slide.append(sheet);
  }
  for (const formula of sheet.querySelectorAll("mjx-container[display] > mjx-math")) {
    const share = formula.getBoundingClientRect().width / sheet.getBoundingClientRect().width;
    if (share > 1) formula.parentNode.style.fontSize = `${Math.floor(98 / share)}%`;
  }
  // A smaller zoom makes lines longer and fewer, so the first guess may be too small: go down in steps.
  let zoom = 1;
  const over = () => slide.scrollHeight > HEIGHT || sheet.scrollWidth * zoom > WIDTH;
  while (over() && zoom > 0.3) sheet.style.zoom = zoom -= 0.05;
  slide.dataset.fitted = zoom.toFixed(2);
}

const settled = () => fit(Reveal.getCurrentSlide());
for (const moment of ["ready", "slidechanged"]) Reveal.on(moment, () => window.MathJax.startup?.promise.then(settled));
window.addEventListener("load", () => window.MathJax.startup?.promise.then(settled));
