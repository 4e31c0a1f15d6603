/** A short burst of paper for a unit that is really the buyer's. */

const PIECES = 24;
const FLIGHT_MS = 1_100;
const REACH_PX = 190;
const COLOURS = 4;

/** Throw the pieces from the middle of `box`; they remove themselves. */
export function celebrate(box: HTMLElement): void {
  if (document.hidden) return;
  for (let piece = 0; piece < PIECES; piece += 1) fling(box, piece);
}

function fling(box: HTMLElement, piece: number): void {
  const element = document.createElement("i");
  element.className = `piece piece-${piece % COLOURS}`;
  box.append(element);
  const angle = (2 * Math.PI * (piece + Math.random())) / PIECES;
  const reach = REACH_PX * (0.45 + Math.random() * 0.55);
  const [x, y] = [Math.cos(angle) * reach, Math.sin(angle) * reach];
  const turn = 200 + Math.random() * 500;
  const frames = [
    { transform: "translate(0, 0) scale(0.3)", opacity: 1 },
    { transform: `translate(${x}px, ${y}px) rotate(${turn}deg)`, opacity: 1, offset: 0.55 },
    { transform: `translate(${x * 1.1}px, ${y + 90}px) rotate(${turn * 1.6}deg)`, opacity: 0 },
  ];
  const options = { duration: FLIGHT_MS, easing: "cubic-bezier(.15,.8,.3,1)" };
  element.animate(frames, options).onfinish = () => element.remove();
}
