// What every drawing needs: sharp canvases, and the style sheet's colours.

const cache = new Map();
const dark = matchMedia("(prefers-color-scheme: dark)");
dark.addEventListener("change", () => cache.clear());

export function colour(name) {
  if (!cache.has(name)) cache.set(name, getComputedStyle(document.documentElement).getPropertyValue(name).trim());
  return cache.get(name);
}

// Gives a canvas as many pixels as it has on the screen; returns them.
export function canvasSize(canvas) {
  const ratio = Math.min(2, devicePixelRatio);
  const width = Math.max(1, Math.round(canvas.clientWidth * ratio));
  const height = Math.max(1, Math.round(canvas.clientHeight * ratio));
  if (canvas.width !== width || canvas.height !== height) {
    canvas.width = width;
    canvas.height = height;
  }
  return [width, height];
}

// Returns a context in CSS pixels, cleared, with the canvas's size in them.
export function fresh(canvas) {
  const [width] = canvasSize(canvas), ratio = width / Math.max(1, canvas.clientWidth);
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, canvas.clientWidth, canvas.clientHeight);
  return [context, canvas.clientWidth, canvas.clientHeight];
}
