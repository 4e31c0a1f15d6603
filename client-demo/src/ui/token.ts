/**
 * Tokens come in the URL fragment (never sent to a server), leave the address bar at once and
 * live in sessionStorage, so that a reload keeps them and a closed tab forgets them.
 */

/** The token of the fragment if there is one, else the kept one, else "". */
export function takeToken(storedAs: string): string {
  const fragment = new URLSearchParams(location.hash.slice(1));
  const given = fragment.get("token");
  if (given !== null) {
    history.replaceState(history.state, "", location.pathname + location.search);
    keepToken(storedAs, given);
    return given;
  }
  try {
    return sessionStorage.getItem(storedAs) ?? "";
  } catch {
    return "";
  }
}

/** Keep `token`; "" forgets it. */
export function keepToken(storedAs: string, token: string): void {
  try {
    if (token) sessionStorage.setItem(storedAs, token);
    else sessionStorage.removeItem(storedAs);
  } catch {
    // Without storage the token lasts until the page is left.
  }
}
