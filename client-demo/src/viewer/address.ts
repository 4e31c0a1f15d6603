/**
 * The address of the demo's buy sheet: it stays on this device. A shop that embeds the page asks
 * for the address in its own checkout.
 */

export interface Address {
  name: string;
  phone: string;
  street: string;
}

export const ADDRESS_FIELDS = [
  "name",
  "phone",
  "street",
] as const satisfies readonly (keyof Address)[];

const STORED_AS = "livesale.address";

export function readAddress(): Address {
  const empty: Address = { name: "", phone: "", street: "" };
  try {
    return { ...empty, ...JSON.parse(localStorage.getItem(STORED_AS) ?? "{}") };
  } catch {
    return empty;
  }
}

export function keepAddress(address: Address): void {
  try {
    localStorage.setItem(STORED_AS, JSON.stringify(address));
  } catch {
    // Without storage it lasts until the sheet is closed.
  }
}
