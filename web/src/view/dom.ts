// Making elements. Text is always a text node: nothing of a user or a server becomes markup.

type Child = Node | string | false | null | undefined;
type Attributes = Record<string, string | number | boolean | null | undefined>;

function fill(element: Element, attributes: Attributes, children: Child[]): void {
  for (const [name, value] of Object.entries(attributes))
    if (value !== false && value !== null && value !== undefined)
      element.setAttribute(name, value === true ? "" : String(value));
  element.append(...children.filter((child): child is Node | string => Boolean(child)));
}

export function el<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: Attributes = {},
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  fill(element, attributes, children);
  return element;
}

export function svg<K extends keyof SVGElementTagNameMap>(
  tag: K,
  attributes: Attributes = {},
  ...children: Child[]
): SVGElementTagNameMap[K] {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  fill(element, attributes, children);
  return element;
}

export function byId<T extends HTMLElement>(id: string, type: new () => T): T {
  const element = document.getElementById(id);
  if (!(element instanceof type)) throw new Error(`no ${type.name} #${id}`);
  return element;
}

export function on<K extends keyof HTMLElementEventMap>(
  element: HTMLElement,
  name: K,
  take: (event: HTMLElementEventMap[K]) => void,
): void {
  element.addEventListener(name, take);
}

export function button(text: string, take: () => void, attributes: Attributes = {}): HTMLButtonElement {
  const made = el("button", { type: "button", ...attributes }, text);
  on(made, "click", take);
  return made;
}

export const wantsStillness = (): boolean => matchMedia("(prefers-reduced-motion: reduce)").matches;

let number = 0;
export const freshId = (word: string): string => `${word}-${++number}`;
