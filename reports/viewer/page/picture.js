// Saves the pictures of the current view as PNG: as they are arranged on the page, with captions, title and color bars.
"use strict";

const Picture = (() => {
  const SCALE = 2, HEAD = 48, GAP = 8, BAR = 200; // px of the page

  // Resolves when the file has been handed to the browser.
  async function save(area, legends, name, about) {
    const blob = await new Promise((resolve) => draw(area, legends, name + about).toBlob(resolve));
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = `${name.replace(/[^\w.-]+/g, "_")}.png`;
    link.click();
    URL.revokeObjectURL(link.href);
  }

  function draw(area, legends, title) {
    const style = getComputedStyle(document.body), origin = area.getBoundingClientRect();
    const place = (element) => {
      const { left, top, width, height } = element.getBoundingClientRect();
      return [left - origin.left + area.scrollLeft, top - origin.top + area.scrollTop + HEAD, width, height];
    };
    const figures = [...area.querySelectorAll(".panel")], places = figures.map(place);
    const left = Math.min(...places.map(([x]) => x)) - GAP, right = Math.max(...places.map(([x, , width]) => x + width)) + GAP;
    const canvas = document.createElement("canvas");
    canvas.width = SCALE * Math.max(right - left, GAP + (BAR + 40) * 2);
    canvas.height = SCALE * (Math.max(...places.map(([, y, , height]) => y + height)) + GAP);
    const context = canvas.getContext("2d");
    context.scale(SCALE, SCALE);
    context.translate(-left, 0);
    context.fillStyle = style.backgroundColor;
    context.fillRect(left, 0, canvas.width, canvas.height);
    context.font = `12px ${style.fontFamily}`;
    const write = (text, x, y, room = Infinity, align = "left") => {
      let length = text.length;
      const cut = () => (length < text.length ? `${text.slice(0, length)}…` : text);
      while (length > 1 && context.measureText(cut()).width > room) length--;
      context.textAlign = align;
      context.fillStyle = style.color;
      context.fillText(cut(), x, y);
    };
    write(title, left + GAP, 14, canvas.width / SCALE - 2 * GAP);
    [...legends].filter((legend) => legend.offsetParent).forEach((legend, i) => drawLegend(context, legend, left + 24 + i * (BAR + 40), write));
    for (const figure of figures) {
      const view = figure.querySelector(".view"), [x, y, width, height] = place(view);
      const value = figure.querySelector(".value").textContent, name = figure.querySelector(".name").textContent;
      const room = width - context.measureText(value).width - 6;
      write(`${figure.querySelector(".key").textContent} ${name}`.trim(), x, y - 6, room);
      write(value, x + width, y - 6, Infinity, "right");
      context.drawImage(view.firstElementChild, x, y, width, height);
      const cross = view.querySelector(".cross");
      if (!cross.hidden) circle(context, x + (width * parseFloat(cross.style.left)) / 100, y + (height * parseFloat(cross.style.top)) / 100);
    }
    return canvas;
  }

  function drawLegend(context, legend, x, write) {
    const colors = context.createLinearGradient(x, 0, x + BAR, 0);
    Colors.barColors(legend.dataset.colors).forEach((color, i, all) => colors.addColorStop(i / (all.length - 1), color));
    context.fillStyle = colors;
    context.fillRect(x, 22, BAR, 8);
    for (const tick of legend.querySelectorAll(".ticks span"))
      write(tick.textContent, x + (BAR * parseFloat(tick.style.left)) / 100, 42, Infinity, "center");
  }

  function circle(context, x, y) {
    for (const [color, width] of [["#000", 3.5], ["#fff", 1.5]]) {
      context.beginPath();
      context.arc(x, y, 5, 0, 2 * Math.PI);
      context.strokeStyle = color;
      context.lineWidth = width;
      context.stroke();
    }
  }

  return { save, draw };
})();
