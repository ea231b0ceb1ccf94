// Sharp canvases, and the colours of the style sheet.

const cache = new Map();
const dark = matchMedia("(prefers-color-scheme: dark)");
dark.addEventListener("change", () => cache.clear());

export function colour(name) {
  if (!cache.has(name)) cache.set(name, getComputedStyle(document.documentElement).getPropertyValue(name).trim());
  return cache.get(name);
}

// Gives a canvas as many pixels as it covers on the screen; returns its width and height.
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

// Clears a canvas; returns its context in CSS pixels, and its width and height in them.
export function clearCanvas(canvas) {
  const [width] = canvasSize(canvas), ratio = width / Math.max(1, canvas.clientWidth);
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, canvas.clientWidth, canvas.clientHeight);
  return [context, canvas.clientWidth, canvas.clientHeight];
}
