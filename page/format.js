/**
 * Numbers for people, as the status screen writes them.
 */

const sizeUnits = ["B", "KiB", "MiB", "GiB", "TiB"];

/** A number and its unit, apart: `["12.5", "MiB"]`. */
export function sizeParts(bytes) {
  let value = Math.max(0, bytes);
  let unit = 0;
  while (value >= 1023.5 && unit + 1 < sizeUnits.length) {
    value /= 1024;
    unit++;
  }
  const digits = unit === 0 || value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2;
  return [String(Number(value.toFixed(digits))), sizeUnits[unit]];
}

/** `12.5 MiB`. */
export function formatSize(bytes) {
  return sizeParts(bytes).join(" ");
}

/** `12.5 MiB/s`. */
export function formatRate(bytes) {
  return `${formatSize(bytes)}/s`;
}

/** `3,120`. */
export function formatCount(count) {
  return String(Math.round(count)).replace(/\B(?=(\d{3})+$)/g, ",");
}

/** `850 µs`, `12.3 ms`, `1.5 s`. */
export function formatMicros(micros) {
  if (micros < 999.5) return `${Math.round(micros)} µs`;
  if (micros < 999_500) return `${Number((micros / 1000).toPrecision(3))} ms`;
  return `${Number((micros / 1e6).toPrecision(3))} s`;
}

/** `42 s`, `3 min 05 s`, `2 h 10 min`. */
export function formatSeconds(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  const two = (value) => String(value).padStart(2, "0");
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${two(whole % 60)} s`;
  if (whole < 86_400) return `${Math.floor(whole / 3600)} h ${two(Math.floor(whole / 60) % 60)} min`;
  return `${Math.floor(whole / 86_400)} d ${Math.floor(whole / 3600) % 24} h`;
}

/** `37 %`; little is not nothing, and almost all is not all. */
export function formatPercent(share) {
  if (share > 0 && share < 0.01) return "< 1 %";
  if (share < 1 && share > 0.99) return "> 99 %";
  return `${Math.round(share * 100)} %`;
}
