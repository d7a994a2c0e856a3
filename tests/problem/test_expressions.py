"""``expressions.py`` against plain Python, and against everything that is no expression."""

import math
import random
import time
from typing import NamedTuple

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from hyperzero_torch.errors import ExpressionError, ProblemError
from hyperzero_torch.problem.expressions import parse_constraint, parse_objective

law = settings(deadline=None, max_examples=120, suppress_health_check=[HealthCheck.too_slow])

METRICS = ["views", "watch_time", "ctr@5 s", "größe", "log", "level"]
DELTA = torch.tensor(
    [[0.1, -0.2, 0.03, 0.5, -0.7, 0.25], [0.0, 0.4, -0.05, 0.001, 0.3, -0.6]], dtype=torch.float64
)
BASE = torch.tensor([3.0, 10.0, 0.5, 2.0, 1.5, 0.25], dtype=torch.float64)
LEVEL = BASE * (1 + DELTA)


def value(source, metrics=METRICS):
    return parse_objective(source, metrics).compiled(DELTA, LEVEL)


def refusal(source, parse=parse_objective, metrics=METRICS):
    with pytest.raises(ExpressionError) as caught:
        parse(source, metrics)
    return caught.value


# --- random trees against plain Python --------------------------------------------------------


class Node(NamedTuple):
    """A tree with its text, how tightly it binds, and what it is worth per row."""

    text: str
    binds: int  # 0 sum, 1 product, 2 sign, 3 power, 4 atom
    row: object  # (delta row, level row) -> float


def guarded(function):
    """IEEE arithmetic where Python raises: the tensors never raise."""

    def run(*values):
        try:
            result = function(*values)
        except ZeroDivisionError:
            return math.nan
        except (OverflowError, ValueError):
            return math.nan
        return math.nan if isinstance(result, complex) else result

    return run


ADD, SUBTRACT = guarded(lambda a, b: a + b), guarded(lambda a, b: a - b)
MULTIPLY, DIVIDE = guarded(lambda a, b: a * b), guarded(lambda a, b: a / b)
POWER = guarded(lambda a, b: a**b * ulps())
EXP = guarded(lambda a: math.exp(a) * ulps())
LOG_ = guarded(lambda a: math.log(a) * ulps())

# Libraries differ in the last bits of these three, which a difference of equal numbers brings
# to the fore; so the reference is also evaluated with noise there, which tells how much.
NOISE = {"size": 0.0, "random": random.Random(0)}


def ulps():
    return 1 + NOISE["size"] * NOISE["random"].uniform(0.5, 1) * NOISE["random"].choice([-1, 1])


def wrap(node, least):
    return node.text if node.binds >= least else f"({node.text})"


def numbers_():
    plain = st.one_of(
        st.integers(0, 20).map(str),
        st.floats(0.001, 50).map(lambda v: f"{v:.4g}"),
        st.sampled_from(["1e-2", "2.5E+1", ".5", "3.", "007"]),
    )
    texts = st.tuples(plain, st.booleans(), st.sampled_from(["", " "]))
    return texts.map(
        lambda t: Node(
            t[0] + (t[2] + "%" if t[1] else ""),
            4,
            lambda d, lev, v=float(t[0]) / (100 if t[1] else 1): v,
        )
    )


def metrics_():
    def node(given_):
        i, level = given_
        name = METRICS[i] if METRICS[i].isidentifier() else f"`{METRICS[i]}`"
        if level:
            return Node(f"level({name})", 4, lambda d, lev: lev[i])
        return Node(name, 4, lambda d, lev: d[i])

    return st.tuples(st.integers(0, len(METRICS) - 1), st.booleans()).map(node)


def extend(children):
    spaces = st.sampled_from(["", " ", "  ", "\t", "\n"])

    def binary(symbol, binds, left, right, function):
        def build(given_):
            a, b, space = given_
            return Node(
                f"{wrap(a, left)}{space}{symbol}{space}{wrap(b, right)}",
                binds,
                lambda d, lev: function(a.row(d, lev), b.row(d, lev)),
            )

        return st.tuples(children, children, spaces).map(build)

    def call(name, count, function):
        def build(arguments):
            return Node(
                f"{name}({', '.join(a.text for a in arguments)})",
                4,
                lambda d, lev: function(*(a.row(d, lev) for a in arguments)),
            )

        return st.lists(children, min_size=count[0], max_size=count[1]).map(build)

    def least(*values):
        return math.nan if any(map(math.isnan, values)) else min(values)

    def most(*values):
        return math.nan if any(map(math.isnan, values)) else max(values)

    return st.one_of(
        binary("+", 0, 0, 1, ADD),
        binary("-", 0, 0, 1, SUBTRACT),
        binary("*", 1, 1, 2, MULTIPLY),
        binary("/", 1, 1, 2, DIVIDE),
        # The base of a power is an atom, its exponent may carry a sign: 2**-1.
        binary("**", 3, 4, 2, POWER),
        children.map(lambda a: Node(f"-{wrap(a, 2)}", 2, lambda d, lev: -a.row(d, lev))),
        children.map(lambda a: Node(f"+{wrap(a, 2)}", 2, a.row)),
        call("abs", (1, 1), abs),
        call("exp", (1, 1), EXP),
        call("sqrt", (1, 1), guarded(math.sqrt)),
        call("log", (1, 1), LOG_),
        call("min", (2, 4), least),
        call("max", (2, 4), most),
    )


TREES = st.recursive(st.one_of(numbers_(), metrics_()), extend, max_leaves=12)


def reference(*nodes, combine=lambda value: value):
    """Per row, the value and how far noise in the last bits moves it."""
    rows = list(zip(DELTA.tolist(), LEVEL.tolist()))

    def once(size):
        NOISE["size"] = size
        return [combine(*(node.row(d, lev) for node in nodes)) for d, lev in rows]

    exact, noisy = once(0.0), [once(1e-14) for _ in range(4)]
    return [(e, max(abs(n - e) for n in others)) for e, *others in zip(exact, *noisy)]


def agree(got, expected):
    """Equal wherever plain Python finds a number; returns how many rows were compared."""
    compared = 0
    for g, (e, noise) in zip(got.tolist(), expected):
        if math.isfinite(e) and math.isfinite(noise) and abs(e) < 1e100:
            assert abs(g - e) <= 1e-12 * abs(e) + 20 * noise
            compared += 1
    return compared


@law
@given(TREES)
def test_random_trees_equal_plain_python(node):
    source = f"{node.text} + 0 * views"
    got = value(source)
    assert got.shape == (2,)
    assert got.dtype == torch.float64
    agree(got, reference(node))


def test_the_random_trees_do_compare_numbers():
    compared = []

    @settings(deadline=None, max_examples=100, database=None, derandomize=True)
    @given(TREES)
    def count(node):
        compared.append(agree(value(f"{node.text} + 0 * views"), reference(node)))

    count()
    assert sum(compared) > 100


@law
@given(TREES, TREES, st.sampled_from([">=", "<="]))
def test_the_slack_is_left_minus_right_or_the_reverse(left, right, sign):
    source = f"{left.text} {sign} {right.text} + 0 * views"
    slack = parse_constraint(source, METRICS).compiled(DELTA, LEVEL)
    swap = sign == "<="
    combine = (lambda a, b: SUBTRACT(b, a)) if swap else SUBTRACT
    agree(slack, reference(left, right, combine=combine))


@law
@given(TREES)
def test_names_that_are_read_are_those_that_are_written(node):
    source = f"{node.text} + 0 * views"
    expression = parse_objective(source, METRICS)
    assert expression.source == source
    # A metric that is not listed changes nothing, a level that is not listed neither.
    delta, level = DELTA.clone(), LEVEL.clone()
    for i, name in enumerate(METRICS):
        if name not in expression.metrics:
            delta[:, i] = math.nan
        if name not in expression.levels:
            level[:, i] = math.nan
    assert expression.levels <= expression.metrics
    torch.testing.assert_close(
        expression.compiled(delta, level),
        expression.compiled(DELTA, LEVEL),
        rtol=0,
        atol=0,
        equal_nan=True,
    )


# --- values by hand ---------------------------------------------------------------------------

VIEWS, WATCH, CTR, SIZE, LOG, LEVEL_ = DELTA.unbind(-1)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("-views**2", -(VIEWS**2)),
        ("(-views)**2", VIEWS**2),
        ("2**-1 * views", VIEWS / 2),
        ("2**3**2 + 0*views", 512 + 0 * VIEWS),
        ("-2**-2 + 0*views", -0.25 + 0 * VIEWS),
        ("1 - 2 - 3 + 0*views", -4 + 0 * VIEWS),
        ("8 / 2 / 2 + 0*views", 2 + 0 * VIEWS),
        ("8 / 2 * 4 + 0*views", 16 + 0 * VIEWS),
        ("1 + 2 * 3 + 0*views", 7 + 0 * VIEWS),
        ("2 * -views", -2 * VIEWS),
        ("- -views", VIEWS),
        ("--+-views", -VIEWS),
        ("views - 0.1%", VIEWS - 0.001),
        ("views - 50 % * 2", VIEWS - 1),
        ("5%**2 + 0*views", 0.0025 + 0 * VIEWS),
        ("level(watch_time)", LEVEL[:, 1]),
        ("level(watch_time) / 10 - 1", WATCH),
        ("level(`ctr@5 s`)", LEVEL[:, 2]),
        ("`ctr@5 s` * 2", 2 * CTR),
        ("`views`", VIEWS),
        ("größe", SIZE),
        ("log", LOG),  # a metric may be called as a function is
        ("log(2 + log)", (2 + LOG).log()),
        ("level", LEVEL_),
        ("level(level)", LEVEL[:, 5]),
        ("level (views)", LEVEL[:, 0]),
        ("min(views, watch_time)", torch.minimum(VIEWS, WATCH)),
        ("max(views, watch_time, 0, 10%)", torch.maximum(VIEWS, WATCH).clamp(min=0.1)),
        ("abs(watch_time)", WATCH.abs()),
        ("exp(views) + sqrt(level(views))", VIEWS.exp() + LEVEL[:, 0].sqrt()),
        ("  views\n", VIEWS),
        ("((((views))))", VIEWS),
    ],
)
def test_values(source, expected):
    torch.testing.assert_close(value(source), expected, rtol=1e-15, atol=1e-16)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("watch_time >= -0.1%", WATCH + 0.001),
        ("watch_time <= 10%", 0.1 - WATCH),
        ("0.1 <= watch_time", WATCH - 0.1),
        ("0.1 >= watch_time", 0.1 - WATCH),
        ("views >= watch_time", VIEWS - WATCH),
        ("level(views) - 1 <= 2 * level(watch_time)", 2 * LEVEL[:, 1] - LEVEL[:, 0] + 1),
    ],
)
def test_slack_is_positive_where_it_holds(source, expected):
    slack = parse_constraint(source, METRICS).compiled(DELTA, LEVEL)
    torch.testing.assert_close(slack, expected, rtol=1e-15, atol=1e-16)


def test_batches_dtypes_and_gradients_go_through():
    expression = parse_objective("views * level(watch_time) + max(1, 2)", METRICS)
    delta = DELTA.expand(4, 3, 2, -1).to(torch.float32)
    value_ = expression.compiled(delta, delta)
    assert value_.shape == (4, 3, 2)
    assert value_.dtype == torch.float32
    free = DELTA.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(expression.compiled(free, LEVEL).sum(), free)
    torch.testing.assert_close(gradient[:, 0], LEVEL[:, 1])
    assert not gradient[:, 1:].any()


def test_metrics_may_be_called_like_operators():
    names = [">=", "%", "(", "**", "views"]
    delta = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])
    expression = parse_objective("`>=` + 10 * `%` + 100 * `(` + 1000 * `**`", names)
    assert expression.compiled(delta, delta) == 4321
    assert refusal("views `>=` 3", parse_constraint, names).position == 7
    assert refusal("3 `%`", metrics=names).position == 3
    assert refusal("log`(`views)", metrics=["log", *names]).position == 4
    assert refusal("2 `**` views", metrics=names).position == 3


# --- refusals ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "at", "reason"),
    [
        ("", 0, "ends here; expected a number, a metric"),
        ("   ", 3, "ends here"),
        ("views +", 7, "ends here"),
        ("views + * 2", 8, r"unexpected '\*'; expected a number"),
        ("views watch_time", 6, "unexpected 'watch_time'; expected an operator"),
        ("views)", 5, "unexpected .* or the end"),
        ("(views", 6, r"expected '\)' for the '\(' at position 0"),
        ("2 * (views + (1)", 16, r"'\(' at position 4"),
        ("views $ 2", 6, r"'\$' is not understood"),
        ("ctr@5", 3, "'@' is not understood"),
        ("views = 2", 6, "'=' is not understood"),
        ("views > 2", 6, "'>' is not understood.*>= <="),
        ("views, 2", 5, "unexpected .* or the end"),
        ("views.shape", 5, "'.' is not understood.*backticks"),
        ("views[0]", 5, "not understood"),
        ("`views", 0, "not understood"),
        ("``", 0, "not understood"),
        ("1e999 * views", 0, "too large"),
        ("9" * 400 + " * views", 0, "too large"),
        ("1 + 2", 5, "no metric is named; known metrics: "),
        ("1.2.3 * views", 3, "unexpected .* or the end"),
        ("0x10 * views", 1, "unexpected .* or the end"),
        ("1_000 * views", 1, "unexpected .* or the end"),
        ("2views", 1, "unexpected .* or the end"),
        ("views²", 0, "unknown metric 'views²'; .*did you mean 'views'"),
        ("views\0", 5, "not understood"),
        ("abs(views, 2)", 0, "takes 1 values, got 2"),
        ("min(views)", 0, "takes 2 to 9 values, got 1"),
        ("min(" + ",".join(["views"] * 10) + ")", 0, "got 10"),
        ("abs()", 4, r"unexpected '\)'; expected a number"),
        ("sin(views)", 0, r"unknown function 'sin'; known functions: \['level', 'abs'"),
        ("level(views + 1)", 12, r"expected '\)'"),
        ("level(3)", 6, "name of one metric"),
        ("level()", 6, "name of one metric"),
        ("level(nope)", 6, "unknown metric 'nope'"),
        ("views %", 6, "unexpected .* or the end"),
        ("(views)%", 7, "unexpected .* or the end"),
        ("views >= 0", 6, "has no '>='; a bound belongs into the constraints"),
        ("views <= 0", 6, "has no '<='"),
        ("a * b", 0, "unknown metric 'a'"),
    ],
)
def test_refusals_point_at_the_place(source, at, reason):
    with pytest.raises(ExpressionError, match=f"(?s){reason}") as caught:
        parse_objective(source, METRICS)
    assert caught.value.position == at
    assert caught.value.source == source
    assert isinstance(caught.value, ProblemError)
    assert isinstance(caught.value, ValueError)
    assert str(caught.value).endswith(f"    {source}\n    {' ' * at}^")


@pytest.mark.parametrize(
    ("source", "at", "reason"),
    [
        ("views", 5, "'>=' or '<=' and a bound"),
        ("views 3", 6, "'>=' or '<='"),
        ("views >= ", 9, "ends here"),
        (">= 3", 0, "unexpected '>='"),
        ("-1 <= views <= 1", 12, "second comparison: write a range as two constraints"),
        ("views >= 1 >= 0", 11, "second comparison"),
        ("1 >= 0", 6, "no metric"),
        ("views => 3", 6, "'=' is not understood"),
        ("views >= 1)", 10, "unexpected .* or the end"),
        ("(views >= 1)", 7, r"expected '\)'"),
        ("wiews >= 1", 0, "did you mean 'views'"),
    ],
)
def test_refused_constraints_point_at_the_place(source, at, reason):
    with pytest.raises(ExpressionError, match=f"(?s){reason}") as caught:
        parse_constraint(source, METRICS)
    assert caught.value.position == at


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("watchtime", "'watch_time'"),
        ("veiws", "'views'"),
        ("Views", "'views'"),
        ("watch", "'watch_time'"),
        ("ctr", "`ctr@5 s`, in backticks"),
    ],
)
def test_a_misspelt_metric_is_recognised(written, meant):
    error = refusal(f"2 * {written}")
    assert f"did you mean {meant}?" in error.reason
    assert error.position == 4
    assert "did you mean" not in refusal("qqqqqqqq").reason


@pytest.mark.parametrize(
    "source",
    [
        "__import__('os').system('true')",
        "__import__(views)",
        "().__class__",
        "views.__class__",
        "lambda: views",
        "f'{views}'",
        'f"{views}"',
        "[views for views in views]",
        "views if views else views",
        "views and views",
        "not views",
        "views := 3",
        "eval(views)",
        "exec(views)",
        "open(views)",
        "torch.abs(views)",
        "views; views",
        "views # comment",
        "views\\\n",
        "views @ views",
        "views // 2",
        "views ^ 2",
        "~views",
        "views | 1",
        "None",
        "True * views",
        "nan * views",
        "inf * views",
        "1j * views",
        "'views'",
        "*views",
        "min(*views)",
        "abs(input=views)",
        "level(views).data",
        "print(views)",
        "globals()",
        "compiled",
        "delta",
    ],
)
def test_nothing_reaches_python(source):
    for parse in (parse_objective, parse_constraint):
        refusal(source, parse)


def parses_or_refuses(source):
    for parse in (parse_objective, parse_constraint):
        try:
            expression = parse(source, METRICS)
        except ExpressionError as error:
            place = error.position
            assert str(error)  # noqa: PT017
        else:
            place = 0
            assert expression.compiled(DELTA, LEVEL).shape == (2,)
        assert 0 <= place <= len(source)


@law
@given(st.text(max_size=60))
@example("٣ * views")
@example("views\u2028+ 1")
@example("\ud800")
@example("`\n` + views")
@example("%%%")
def test_any_text_parses_or_is_refused(source):
    parses_or_refuses(source)


WORDS = "views watch_time level log abs min max sqrt exp e _ level(views) größe nope"
SIGNS = "( ) , + - * / ** % >= <= ` . \0 ' \" = < > [ ] { } : ; @ # \\ 1 2.5 1e3 1e999 \u0663 ²"
PIECES = st.sampled_from(["`ctr@5 s`", *WORDS.split(), *SIGNS.split(" ")])


@law
@given(st.lists(PIECES, max_size=25), st.sampled_from(["", " "]))
def test_any_row_of_tokens_parses_or_is_refused(pieces, space):
    parses_or_refuses(space.join(pieces))


@law
@given(TREES, st.integers(0, 2**30), st.sampled_from(["drop", "put", "swap", "cut"]), PIECES)
def test_any_mutation_of_a_valid_string_parses_or_is_refused(node, seed, how, piece):
    source = f"{node.text} >= views"
    at = seed % len(source)
    other = (seed // 7) % len(source)
    mutated = {
        "drop": source[:at] + source[at + 1 :],
        "put": source[:at] + piece + source[at:],
        "cut": source[:at],
        "swap": source[:at] + source[other] + source[at + 1 :],
    }[how]
    parses_or_refuses(mutated)


HUGE = {
    "parentheses": "(" * 4000 + "views" + ")" * 4000,
    "open parentheses": "(" * 10_000,
    "signs": "-" * 9000 + "views",
    "powers": "views" + "**views" * 1200,
    "calls": "abs(" * 2000 + "views" + ")" * 2000,
    "sums": "views" + "+views" * 1600,
    "products": "views" + "*1" * 4900,
    "blanks": " " * 9990 + "views",
    "tokens": "1 " * 4999,
    "digits": "1" * 9990,
    "decimals": "0." + "1" * 9900 + "*views",
    "tower": "9**9**9**9 + views",
    "negative tower": "views / 1e308**9**9",
    "exponent": "1e999999999999 * views",
    "too long": "views + " * 5000,
    "one name": "a" * 9999,
    "backticks": "`" * 9999,
    "commas": "max(" + "views," * 1500 + "views)",
    "blanks in the middle": "views" + " " * 9000 + "$",
}


@pytest.mark.parametrize("name", HUGE)
def test_huge_input_neither_hangs_nor_recurses(name):
    start = time.perf_counter()
    parses_or_refuses(HUGE[name])
    assert time.perf_counter() - start < 5  # all of them take milliseconds


def test_what_is_too_deep_or_too_long_is_said():
    assert "nested more than 60 deep" in refusal(HUGE["parentheses"]).reason
    assert "nested more than 60 deep" in refusal(HUGE["powers"]).reason
    long = refusal(HUGE["too long"])
    assert "40000 characters, at most 10000" in long.reason
    assert len(str(long)) < 300
    assert torch.equal(value("(" * 50 + "views" + ")" * 50), VIEWS)


def test_a_thousand_terms_are_fine():
    assert value(HUGE["sums"]).tolist() == pytest.approx((1601 * VIEWS).tolist())
    assert value("9**9**9 + views").tolist() == [math.inf, math.inf]
