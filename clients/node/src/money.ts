/** Amounts: whole numbers of the currency's minor unit, as `bigint`, beside the decimals that people write. */

/** An amount of money. */
export interface Money {
  /** In the currency's minor unit: 1050n is 10.50 EUR, and 1050 JPY. */
  amountMinor: bigint;
  /** ISO 4217 code: three upper-case letters. */
  currencyCode: string;
}

/** An amount in the currency's minor unit: `money(1050, "EUR")` is 10.50 EUR. */
export function money(amountMinor: bigint | number, currencyCode: string): Money {
  return { amountMinor: BigInt(amountMinor), currencyCode };
}

/** How many digits the currency has behind the point: 2 for EUR, 0 for JPY, 3 for KWD. */
export function currencyExponent(currencyCode: string): number {
  if (!/^[A-Z]{3}$/.test(currencyCode)) {
    throw new RangeError("a currency's code must be three upper-case letters");
  }
  const known = ISO_4217[currencyCode];
  if (known !== undefined) return known;
  const format = new Intl.NumberFormat("en", { style: "currency", currency: currencyCode });
  return format.resolvedOptions().maximumFractionDigits ?? 2;
}

/** Where Intl, which follows what is usual in print, has other digits than ISO 4217. */
const ISO_4217: Record<string, number> = {
  AFN: 2, ALL: 2, COP: 2, HUF: 2, IDR: 2, IQD: 3, IRR: 2, KPW: 2, LAK: 2, LBP: 2, MGA: 2, MMK: 2, PKR: 2, RSD: 2,
  SLE: 2, SOS: 2, SYP: 2, YER: 2,
};

/** Reads a decimal: `parseMoney("10.50", "EUR")`. More digits than the currency has are an error, not rounded. */
export function parseMoney(decimal: string, currencyCode: string): Money {
  const exponent = currencyExponent(currencyCode);
  const [, sign, whole, fraction = ""] = /^(-?)(\d+)(?:\.(\d+))?$/.exec(decimal) ?? [];
  if (whole === undefined) {
    throw new RangeError("an amount must be a decimal such as 10.50");
  }
  if (fraction.length > exponent) {
    throw new RangeError(`an amount of ${currencyCode} has at most ${exponent} digits behind the point`);
  }
  const amount = BigInt(whole + fraction.padEnd(exponent, "0"));
  return { amountMinor: sign === "-" ? -amount : amount, currencyCode };
}

/** Writes a decimal: "10.50". The opposite of {@link parseMoney}. */
export function formatMoney({ amountMinor, currencyCode }: Money): string {
  const exponent = currencyExponent(currencyCode);
  const digits = (amountMinor < 0n ? -amountMinor : amountMinor).toString().padStart(exponent + 1, "0");
  const whole = digits.slice(0, digits.length - exponent);
  const sign = amountMinor < 0n ? "-" : "";
  return exponent === 0 ? sign + whole : `${sign}${whole}.${digits.slice(-exponent)}`;
}
