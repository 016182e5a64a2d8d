/* What the scripts of all pages share. */

export const $ = (id) => document.getElementById(id);
export const number = new Intl.NumberFormat("en");
export const clock = new Intl.DateTimeFormat("en", { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });

/** An element; strings among its children become text, so nothing that others sent is ever read as markup. */
export function element(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

/** Text from somebody else's data, whatever that holds, cut to a length. */
export function clip(value, most) {
  const text = typeof value === "object" && value !== null ? JSON.stringify(value) : String(value ?? "");
  return text.slice(0, most);
}

/** Set a node's text, and leave it alone where it says so already: a live region then stays silent. */
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Run a form's or a button's request; show under it what went wrong. True if nothing did. */
export async function attempt(control, error, action) {
  control.disabled = true;
  error.hidden = true;
  try {
    await action();
    return true;
  } catch (problem) {
    error.textContent = `That did not work: ${problem.message}`;
    error.hidden = false;
    return false;
  } finally {
    control.disabled = false;
  }
}
