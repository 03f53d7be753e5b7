// What a failed request looks like: what happened, the server's words, what to do.
import type { Failure } from "../failure";
import { button, el } from "./dom";

// `retry` is offered where the same request may succeed later, after the wait that the server asked for.
export function failurePanel(failure: Failure, retry: () => void, toKey: () => void): HTMLElement {
  const panel = el(
    "div",
    { class: "failure" },
    el(
      "div",
      { role: "alert" },
      el("h3", {}, failure.title()),
      el("p", {}, el("q", {}, failure.message), failure.status ? ` (status ${failure.status})` : null),
      el("p", {}, failure.advice()),
    ),
  );
  if (failure.kind === "key") panel.append(button("Enter a key", toKey));
  if (failure.mayRetry()) panel.append(retryButton(failure.retryAfterS ?? 0, retry));
  return panel;
}

function retryButton(waitS: number, retry: () => void): HTMLButtonElement {
  const until = Date.now() + waitS * 1000;
  const made = button("Try again", retry);
  const tick = () => {
    const left = Math.ceil((until - Date.now()) / 1000);
    made.disabled = left > 0;
    made.textContent = left > 0 ? `Try again in ${left} s` : "Try again";
    if (left > 0) setTimeout(tick, 250);
  };
  tick();
  return made;
}
