"use strict";
for (const map of document.querySelectorAll(".map")) {
  const svg = map.querySelector("svg"), tip = map.querySelector(".tip");
  const thumb = tip.querySelector(".thumb"), words = tip.querySelector(".words");
  const points = [...svg.querySelectorAll("circle")].map((circle, number) => {
    const title = circle.querySelector("title"), text = title.textContent;
    title.remove(); // ours replaces the browser's own
    return {circle, number, text, x: +circle.getAttribute("cx"), y: +circle.getAttribute("cy")};
  });
  const columns = +map.dataset.columns, side = svg.viewBox.baseVal.width;
  let chosen = null;

  const hide = () => {
    if (chosen) chosen.circle.classList.remove("chosen");
    chosen = null;
    tip.hidden = true;
  };
  const show = (point) => {
    hide();
    chosen = point;
    point.circle.classList.add("chosen");
    words.textContent = point.text;
    if (thumb) thumb.style.backgroundPosition = `${-96 * (point.number % columns)}px ${-96 * Math.floor(point.number / columns)}px`;
    tip.hidden = false;
    const scale = svg.clientWidth / side, x = point.x * scale, y = point.y * scale;
    tip.style.left = Math.max(0, Math.min(x + 14, map.clientWidth - tip.offsetWidth)) + "px";
    tip.style.top = (y > tip.offsetHeight + 14 ? y - tip.offsetHeight - 14 : y + 14) + "px";
  };
  const nearest = (event) => {
    const box = svg.getBoundingClientRect(), scale = side / box.width;
    const x = (event.clientX - box.left) * scale, y = (event.clientY - box.top) * scale;
    let best = null, least = (18 * scale) ** 2;
    for (const point of points) {
      const distance = (point.x - x) ** 2 + (point.y - y) ** 2;
      if (distance < least) { least = distance; best = point; }
    }
    if (best) show(best); else hide();
  };
  svg.addEventListener("pointermove", nearest);
  svg.addEventListener("pointerdown", nearest);
  svg.addEventListener("pointerleave", hide);
  svg.addEventListener("blur", hide);
  svg.addEventListener("keydown", (event) => {
    const step = {ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1}[event.key];
    if (!step || !points.length) return;
    event.preventDefault();
    show(points[((chosen ? chosen.number : -1) + step + points.length) % points.length]);
  });
}
