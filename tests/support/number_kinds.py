"""Held-out cases by kind, written before the rules: numbers, number words, units, money, roots, roundings."""

from __future__ import annotations

# kind → (what is right, what is not); each pair is gold, answer
NUMBER_KINDS: dict[str, tuple[list[tuple[str, str]], list[tuple[str, str]]]] = {
    "number words": (
        [
            ("3000000", "3 million"), (r"1.2\text{ billion}", "1200000000"), ("24", "2 dozen"), ("2.5", "5 halves"),
            ("0.7", "7 tenths"), (r"\frac{2}{3}", "two thirds"), ("25", "twenty-five"), ("305",
            "three hundred and five"),
            ("7500", r"7.5 \text{ thousand}"), ("12", "a dozen"), (r"\frac{3}{4}", "three quarters"),
            (r"6 \times 10^{12}", "6 trillion"), ("1500000", r"\$1.5 million"), ("36 eggs", "3 dozen eggs"),
            ("2500", "two thousand five hundred"), ("500", "5 hundred"), ("2.5", "2 and a half"),
        ],
        [
            ("3 million", "3 thousand"), ("3", "3 million"), ("7", "7 dozen"), ("5", "5 thirds"),
            ("9", "9 hundredths"),
            (r"4\text{ hundred}", r"4\text{ thousand}"), ("25", "twenty, five"), ("7", "seven eighths"), ("5",
            "five hundred"),
            ("8", "8 millionths"), ("2", "two point five"), ("40", "four"), ("6", "6 billion dollars"), ("5",
            "five or six"),
        ],
    ),
    "operator words": (
        [("7", "7 units"), ("7", "7 apples"), ("18", "18 eggs"), ("4", "4 more boxes"), ("6", "6 years old"),
        ("11", "11 students")],
        [
            ("7", "7 cubed"), ("7", "7 squared"), ("7", "7 tripled"), ("7", "7 factorial"), ("7", "7 inverse"),
            ("7", "7 root"),
            ("7", "7 theta"), ("7", "7 omega"), ("7", "7 false"), ("7", "7 not"), ("7", "7 negative"), ("7",
            "7 is wrong"),
            ("7", "7 plus"), ("7", "7 less"), ("7", "7 choose"), ("7", "7 modulo"), ("7", "7 doubled"),
            ("7", r"7\text{ squared}"),
            ("7", r"7\text{ is incorrect}"), ("7", "7 halved"), ("7", "7 times"), ("7", "7 minus"), ("7",
            "7 power"), ("7", r"7 \alpha"),
            ("7", "7 wrong apples"), ("7", r"7\text{ or so}"), ("7", "7 to 9 apples"), ("7", "7th"),
            ("7", "7 lambda"),
            ("7", "7 below zero"), ("7", "7 unlikely"), ("7", "7 degrees below zero"), ("7", "7 base 8"),
        ],
    ),
    "units": (
        [
            ("9.8", r"9.8\ \text{m/s}^2"), ("9.8", r"9.8 \frac{\text{m}}{\text{s}^{2}}"),
            (r"9.8\text{ m/s}^2", r"9.8\,\mathrm{m\,s^{-2}}"),
            ("60", r"60 \text{ km/h}"), ("60", "60 km per hour"),
            ("3", r"3\ \mathrm{kg}\cdot\mathrm{m}/\mathrm{s}"), ("47", r"47~\Omega"),
            ("5", "5 J"), ("300", "300 K"), ("5", r"5\,\mathrm{eV}"), ("1.6", r"1.6\;\text{μm}"), ("20", "20°C"),
            ("20", r"20^\circ\mathrm{C}"),
            (r"5\text{ cm}^3", r"5\text{ cubic centimeters}"), (r"40\text{ mph}", r"40 \text{ miles per hour}"),
            ("8", "8 kg"),
            (r"12\text{ m}", "12 m"), ("5", "5 米"), ("30", "30 个"), (r"2\text{ hours}", "2 hrs"),
            ("4", r"4\text{ square units}"),
            (r"4\sqrt{2}\text{ cm}", r"\sqrt{32}"), ("3", r"3 \text{ N}\cdot\text{m}"),
            ("100", r"100\,\text{kPa}"), ("2", r"2\text{ mol}"),
        ],
        [
            (r"12\text{ N}", r"12\text{ J}"), (r"5\text{ km}", r"5\text{ m}"), (r"5\text{ m}^2", r"5\text{ m}^3"),
            (r"5\text{ m/s}", r"5\text{ m/s}^2"),
            (r"20^\circ\text{C}", r"20^\circ\text{F}"), (r"7\text{ dogs}", r"7\text{ cats}"),
            (r"5\text{ mA}", r"5\text{ A}"), ("5", "5x"), ("5", "5 q"),
            (r"\$5", r"5\text{ cm}"), (r"5\text{ s}", r"5\text{ min}"), (r"90^\circ", r"90\text{ rad}"),
            (r"5\text{ mW}", r"5\text{ MW}"),
            (r"3\text{ m}", r"4\text{ m}"), (r"10\text{ kg}", r"10\text{ g}"), ("5", "5 e"),
            ("6", r"6\text{ ft } 2\text{ in}"), ("5", "5 ab"),
        ],
    ),
    "money": (
        [
            ("31", "€31"), ("31", "£31.00"), ("31", "31 USD"), ("31", "¥31"), ("31", r"US\$31"),
            ("1200", r"\$1,200"), (r"\$4.50", "4.5"),
            (r"\$4.50", "4.50 dollars"), (r"50\text{ cents}", "50¢"), ("25", "25 元"), ("-3", r"-\$3"),
            (r"2\text{ euros}", "€2"),
        ],
        [(r"\$31", "€31"), (r"\$5", "5 cents"), ("31", r"-\$31"), ("31", r"\$3.1"), (r"5\text{ euros}", r"\$5"),
        ("5", r"\$5 million"),
         ("31", r"\$31k")],
    ),
    "root sign": (
        [
            ("5", "√25"), ("1.5", "√2.25"), (r"3\sqrt{7}", "3√7"), (r"\sqrt{x+4}", "√(x+4)"), ("2", "∛8"),
            (r"\frac{\sqrt{3}}{2}", "√3/2"),
            (r"\sqrt{15}", "√15"), (r"\sqrt{x}", "√x"), (r"10\sqrt{11}", "10√11"), ("3", "∜81"), ("4", r"\sqrt16"),
            (r"2\sqrt{3}", "2*√3"),
            (r"\frac{\sqrt{5}}{5}", "1/√5"), ("13", "√(144+25)"), (r"\frac{1+\sqrt{5}}{2}", "(1+√5)/2"),
            (r"\sqrt{2}", "sqrt(2)"),
        ],
        [
            ("10", "√25"), ("15", "3√25/3"), ("7", "√17"), ("0", "√10"), ("0", "√10/2"), ("27", "3√19"), ("0",
            "√100"), ("6", r"\sqrt16"),
            ("5", "√5·1"), ("12", "√112"), ("2.25", "√1.225"), ("3", "∛9"), ("20", "2√100·0"),
        ],
    ),
    "exact and rounded": (
        [
            (r"\frac{2}{3}", r"\frac{2}{3} \approx 0.667"), (r"\frac{2}{3}", r"2/3 ≈ 0.67"),
            (r"\pi", r"\pi \approx 3.14"),
            (r"4\sqrt{2}", r"4\sqrt{2} \approx 5.657"), (r"\frac{22}{7}", r"\frac{22}{7} \approx 3.14"),
            (r"e^2", r"e^2 \approx 7.389"),
            (r"10\pi", r"10\pi \approx 31.4"), (r"\frac{1}{7}", r"x = \frac{1}{7} \approx 0.1429"),
            (r"\sqrt{10}", r"\sqrt{10}\approx3.16"),
            (r"\frac{5}{9}", r"\frac{5}{9} \approx 0.56"),
        ],
        [
            ("0.67", r"\frac{2}{3} \approx 0.66"), (r"\frac{2}{3}", r"\frac{3}{4} \approx 0.667"),
            ("8", r"8 \approx 9"), ("2", r"1.7 \approx 2"),
            (r"\pi", r"3.14 \approx \pi"), (r"\frac{2}{3}", r"\frac{2}{3} \approx 0.7777"),
            (r"4\sqrt{2}", r"5.66 \approx 4\sqrt{2}"),
            ("3", r"\pi \approx 3"), (r"\frac{1}{2}", r"\frac{1}{2} \approx \frac{1}{3}"),
            (r"5\pi", r"5\pi \approx 15.2"), ("100", r"100 \approx 101"),
            ("5", r"4 \approx 5"), ("5", r"5 \approx x"),
        ],
    ),
    "thousands and lists": (
        [("2,345, 6,789", "6789, 2345"), ("1,000", "1000"), ("100, 200", "200, 100"), (r"10,\!080", "10080"),
        (r"1,\! 234", "1234")],
        [("2345", "2, 345"), ("21,34", "2134"), ("100200", "100, 200"), ("1,234, 5,678", "1234"), ("3", "1, 2, 3")],
    ),
    "percent": (
        [("0.35", "35 percent"), ("0.35", r"35\text{ per cent}"), (r"35\%", "35 percent"), ("0.35", "35％"),
        (r"12.5\%", r"\frac{1}{8}")],
        [("35", "3500%"), (r"35\%", r"3.5\%"), ("0.35", r"0.35\%"), ("7", r"700\%"), ("0.7", "7 percent")],
    ),
    "powers of ten": (
        [("650000", "6.5×10⁵"), ("0.0065", "6.5×10⁻³"), ("650000", "6.5e5"), ("1000", "10³"), ("8", "2³"),
        (r"x^{10}", "x¹⁰"), (r"x_1+x_2", "x₁+x₂")],
        [("650000", "6.5×10⁴"), ("65", "6.5×10¹⁰"), ("1000", "10²"), ("23", "2³"), ("x10", "x¹⁰"), ("105", "10⁵")],
    ),
    "fraction signs": (
        [(r"\frac{2}{3}", "⅔"), (r"\frac{7}{8}", "⅞"), (r"\frac{4}{3}", "1⅓"), (r"\frac{1}{2}", "½"), ("2.75",
        "2¾"), (r"\frac{3}{5}", "3⁄5")],
        [(r"\frac{1}{3}", "⅔"), (r"\frac{1}{3}", "1⅓"), ("13", "1⅓"), (r"\frac{7}{8}", "⅝"), ("12", "1½")],
    ),
    "further number words": (
        [
            ("40", "2 score"), ("144", "a gross"), ("500000", "5 lakh"), ("6", "half a dozen"),
            ("500000", "half a million"),
            ("-3", "negative three"), ("-3", "minus three"), ("5", "5 points"), ("7", "7 pairs"),
            (r"0.\dot{3}", "1/3"),
            ("0.5(3)", r"0.5\overline{3}"), ("5", r"5 \text{ sq. ft}"), ("5 (apples)", "5"),
        ],
        [("2", "2 score"), ("5", "5 lakh"), ("3", "negative three"), ("12", "half a dozen"), ("5", "5 point"),
         ("7", "7 (wrong)"),
         ("1.5", "0.5(3)")],
    ),
}  # fmt: skip
