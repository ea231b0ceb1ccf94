// The input of manual driving: keys (several at once), touch buttons, and a gamepad.

const KEYS = { ArrowLeft: "left", ArrowRight: "right", ArrowUp: "gas", ArrowDown: "brake" };
const DEAD_ZONE = 0.1;

export const isTyping = (target) => target instanceof Element && target.matches("input, select, textarea");

export class ManualInput {
  constructor(buttons) {
    this.pressed = new Set();
    this.isOn = () => true; // whether the keys drive the car now
    addEventListener("keydown", (event) => {
      const control = KEYS[event.key];
      if (!control || !this.isOn() || isTyping(event.target) || event.ctrlKey || event.altKey || event.metaKey) return;
      event.preventDefault();
      this.pressed.add(control);
    });
    addEventListener("keyup", (event) => this.pressed.delete(KEYS[event.key]));
    addEventListener("blur", () => this.pressed.clear());
    document.addEventListener("visibilitychange", () => this.pressed.clear());
    for (const button of buttons) this.watch(button);
  }

  watch(button) {
    const { control } = button.dataset;
    const press = (isDown) => {
      this.pressed[isDown ? "add" : "delete"](control);
      button.classList.toggle("held", isDown);
    };
    button.addEventListener("pointerdown", (event) => {
      event.preventDefault();
      button.setPointerCapture(event.pointerId);
      press(true);
    });
    for (const kind of ["pointerup", "pointercancel", "lostpointercapture"]) button.addEventListener(kind, () => press(false));
    button.addEventListener("contextmenu", (event) => event.preventDefault());
    button.addEventListener("keydown", (event) => { if (event.key === " " || event.key === "Enter") { event.preventDefault(); press(true); } });
    button.addEventListener("keyup", () => press(false));
    button.addEventListener("blur", () => press(false));
  }

  pedals() {
    const down = (control) => Number(this.pressed.has(control));
    let steering = down("left") - down("right"), throttle = down("gas") - down("brake");
    for (const pad of navigator.getGamepads?.() ?? []) {
      if (!pad) continue;
      const wheel = -pad.axes[0], stick = -pad.axes[1];
      const triggers = (pad.buttons[7]?.value ?? 0) - (pad.buttons[6]?.value ?? 0);
      if (Math.abs(wheel) > DEAD_ZONE) steering = wheel;
      if (Math.abs(stick) > DEAD_ZONE) throttle = stick;
      if (Math.abs(triggers) > DEAD_ZONE) throttle = triggers;
    }
    const within = (value) => Math.min(1, Math.max(-1, value));
    return { steering: within(steering), throttle: within(throttle) };
  }
}
