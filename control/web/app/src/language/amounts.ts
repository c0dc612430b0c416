// Numbers as people write them, of which none may be taken for another one: a limit that is ten times too
// high, or a tenth, is money.

/** Whole numbers with or without separators between thousands: 1500000, 1,500,000, 1.500.000, -5. Undefined for all else. */
export function wholeOf(text: string): number | undefined {
  const plain = text.trim();
  if (!/^[+-]?(\d+|\d{1,3}([.,_'\s])\d{3}(\2\d{3})*)$/.test(plain)) return undefined;
  const n = Number(plain.replace(/[.,_'\s]/g, ""));
  return Number.isSafeInteger(n) ? n : undefined;
}

/**
 * Cents of an amount such as 25, 25.5 or 25,50. Undefined for all else: without separators between thousands,
 * since nobody knows whether 1,000 is a thousand or one.
 */
export function centsOf(text: string): number | undefined {
  const [, whole, part] = /^(\d+)(?:[.,](\d{1,2}))?$/.exec(text.trim()) ?? [];
  if (whole === undefined) return undefined;
  const cents = Number(whole) * 100 + Number((part ?? "").padEnd(2, "0"));
  return Number.isSafeInteger(cents) ? cents : undefined;
}
