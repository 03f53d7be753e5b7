// A list whose elements glide to their new places.
import { wantsStillness } from "./dom";

const glideMs = 420;

// Puts `elements` into `list` in that order. Elements that stay keep their state, and the focus stays where it is.
export function arrange(list: HTMLElement, elements: HTMLElement[]): void {
  const inOrder =
    list.children.length === elements.length && elements.every((element, i) => list.children[i] === element);
  if (inOrder) return;
  const still = wantsStillness();
  const before = new Map<Element, number>();
  if (!still) for (const child of list.children) before.set(child, child.getBoundingClientRect().top);
  const focused = document.activeElement;
  const held = focused instanceof HTMLElement && list.contains(focused) ? focused : null;

  const wanted = new Set<Element>(elements);
  for (const child of [...list.children]) if (!wanted.has(child)) child.remove();
  elements.forEach((element, i) => {
    const there = list.children[i];
    if (there !== element) list.insertBefore(element, there ?? null);
  });
  if (held && document.activeElement !== held) held.focus({ preventScroll: true });

  if (still) return;
  for (const child of before.keys()) for (const glide of child.getAnimations()) glide.cancel();
  const seen = innerHeight * 2;
  // All are measured before the first is moved, so that the page is laid out once.
  const after = elements.map((element) => element.getBoundingClientRect().top);
  elements.forEach((element, i) => {
    const from = before.get(element);
    const to = after[i] as number;
    if (from === undefined || Math.abs(from - to) < 1 || (Math.abs(from) > seen && Math.abs(to) > seen)) return;
    // Long ways are shortened: what jumps over twenty cards need not fly across them all.
    const way = Math.max(-innerHeight, Math.min(innerHeight, from - to));
    element.animate([{ transform: `translateY(${way}px)` }, { transform: "none" }], {
      duration: glideMs,
      easing: "cubic-bezier(.2,.7,.2,1)",
    });
  });
}
