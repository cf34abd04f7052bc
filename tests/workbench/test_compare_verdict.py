"""What stands out in comparisons made up row by row, and what does not."""

import dataclasses
import math

import pytest

from sessions.errors import SessionError
from workbench.compare.comparison import Comparison, OutputRow, SideFacts, WeightRow, read_comparison
from workbench.compare.metrics import Measure
from workbench.compare.verdict import judge

FORMAT = 7e-4  # about FP8 with blocks: 31.5 dB
ROUNDOFF = 1.2e-4
SIDE = SideFacts(".", "tiny", "/tiny", "fp8", "Llama", 1, "cpu", "", "native")


def db(value: float) -> float:
    return 10 ** (-value / 10)


def measured(noise: float, odd: int = 0) -> Measure:
    return Measure(100, 100 - odd, noise, noise, 0.9, 0.1, 1.0, odd)


def row(module: str, out: float, into: float | None, *, fmt: float = 0.0, slot: str = "", odd=0, input_odd=0, **more):
    layer = int(module.split(".")[2]) if module.count(".") > 1 else -1
    kind = ".".join(module.split(".")[3:]) or ("layer" if layer >= 0 else module)
    return OutputRow(
        module, slot, layer, kind, "copies", (4, 8), measured(out, odd), into, input_odd, ROUNDOFF, fmt,
        holds_layers=module == "model", **more,
    )  # fmt: skip


def weight(name: str, noise: float, expected: float | None = FORMAT) -> WeightRow:
    module = name.removesuffix(".weight")
    return WeightRow(name, (module,), int(name.split(".")[2]), "w", (8, 8), measured(noise), expected, True)


def compared(outputs, weights=()) -> Comparison:
    return Comparison(SIDE, SIDE, (1, 2), tuple(outputs), tuple(weights), (), is_same_checkpoint=False)


def layers(count: int = 8, change=None, *, growth: float = FORMAT):
    """A growing noise through `count` layers of norm, linear and block; `change(layer, rows, noise)` may alter one."""
    noise, rows = 0.0, []
    for n in range(count):
        at, after = f"model.layers.{n}", noise + growth
        own = [
            row(f"{at}.norm", noise + ROUNDOFF / 2, noise),
            row(f"{at}.mlp", after, noise + ROUNDOFF / 2, fmt=FORMAT),
        ]
        own.append(row(at, after, noise, fmt=FORMAT))
        if change is not None:
            own = change(n, own)
        rows += own
        noise = own[-1].measure.noise
    return [*rows, row("model", noise, None)]


def names(comparison: Comparison, **options) -> list[str]:
    return [one.name for one in judge(comparison, **options).troubles]


def test_noise_that_grows_from_layer_to_layer_is_alike():
    deep = layers(60, growth=3 * FORMAT)
    assert deep[-2].measure.sqnr_db < 10  # far below what one layer may add
    assert names(compared(deep)) == []


def louder(layer: int, times: float):
    def change(n, rows):
        if n != layer:
            return rows
        loud = [dataclasses.replace(one, measure=measured(one.measure.noise * times)) for one in rows[1:]]
        return [rows[0], *loud]

    return change


def test_one_module_above_its_input_and_format_stands_out_and_the_layers_after_it_do_not():
    verdict = judge(compared(layers(12, louder(5, 300))))
    assert [one.name for one in verdict.troubles] == ["model.layers.5.mlp"]
    assert verdict.first.fault == "load"
    assert "model.layers.5" not in [one.name for one in verdict.troubles]


@pytest.mark.parametrize(("times", "stands_out"), [(30, False), (60, True)])
def test_an_output_stands_out_ten_decibels_above_four_times_its_formats_noise(times, stands_out):
    # the expectation is roundoff + 4 × format, 10 dB above it is about 42 times the format's noise
    rows = [row("model.layers.0.mlp", FORMAT * times, 0.0, fmt=FORMAT)]
    assert bool(names(compared(rows))) == stands_out


def test_a_plain_module_may_add_only_what_its_dtype_rounds():
    rows = [row("model.layers.0.gate", db(25), db(60))]
    assert names(compared(rows)) == ["model.layers.0.gate"]


def test_neighbours_excuse_a_quantized_module_but_not_a_plain_one():
    def rows(fmt: float):
        return [row(f"model.layers.{n}.o_proj", db(14), db(40), fmt=fmt) for n in range(5)]

    assert names(compared(rows(FORMAT))) == []
    assert len(names(compared(rows(0.0)))) == 5


def test_neighbours_cannot_excuse_everything():
    rows = [row(f"model.layers.{n}.o_proj", db(0), db(40), fmt=FORMAT) for n in range(5)]
    assert len(names(compared(rows))) == 5


def test_a_module_that_holds_the_noisy_one_follows_from_it():
    (trouble,) = judge(compared(layers(6, louder(2, 1000)))).troubles
    assert trouble.module == "model.layers.2.mlp"
    inner = row("model.layers.2.mlp.down_proj", 0.9, 1e-3, fmt=FORMAT)
    outer = row("model.layers.2.mlp", 0.9, 1e-3, fmt=FORMAT)
    assert names(compared([inner, outer])) == ["model.layers.2.mlp.down_proj"]


def test_noise_that_comes_up_between_two_modules_is_told_of_the_module_around_them():
    at = "model.layers.1.self_attn"
    rows = [
        row(f"{at}.qkv_proj", db(28), db(30), fmt=FORMAT),
        row(f"{at}.o_proj", db(1), db(1), fmt=FORMAT),
        row(at, db(1), db(30), fmt=FORMAT),
    ]
    (trouble,) = judge(compared(rows)).troubles
    assert trouble.module == at
    assert "in what goes into o_proj" in trouble.worst.why


def test_not_a_number_is_told_where_it_begins():
    at = "model.layers.0"
    rows = [
        row(f"{at}.norm", 0.0, 0.0),
        row(f"{at}.mlp", 0.0, 0.0, fmt=FORMAT, odd=3),
        row(at, 0.0, 0.0, fmt=FORMAT, odd=3),
        row("model.layers.1.norm", 0.0, 0.0, odd=3, input_odd=3),
    ]
    (trouble,) = judge(compared(rows)).troubles
    assert trouble.module == f"{at}.mlp"
    assert "3 elements are NaN" in trouble.worst.why


def test_an_output_that_is_not_its_input_times_its_weight_on_disk_stands_out_however_noisy_the_input_is():
    rows = [
        row(f"model.layers.{n}.up", db(20), db(20), fmt=FORMAT, recomputed_noise=db(22) if n == 3 else db(45))
        for n in range(6)
    ]
    (trouble,) = judge(compared(rows)).troubles
    assert trouble.name == "model.layers.3.up"
    assert trouble.fault == "load"
    assert "beside its input times its weight on disk" in trouble.worst.why


@pytest.mark.parametrize(("loss_db", "stands_out"), [(0, False), (5, False), (7, True)])
def test_a_weight_stands_out_six_decibels_below_what_its_format_gives(loss_db, stands_out):
    rows = [weight("model.layers.2.o_proj.weight", FORMAT * 10 ** (loss_db / 10))]
    assert bool(names(compared([row("model.layers.2.o_proj", 0.0, 0.0)], rows))) == stands_out


def test_a_weight_of_a_format_that_cannot_say_its_noise_is_not_judged():
    rows = [weight("model.layers.2.o_proj.weight", 0.5, None)]
    assert names(compared([row("model.layers.2.o_proj", 0.0, 0.0)], rows)) == []


def test_the_fault_is_the_checkpoints_where_weights_differ_and_a_decisions_where_only_the_build_does():
    rows = [row("model.layers.0.o_proj", 0.5, 0.0)]
    odd = [weight("model.layers.0.o_proj.weight", 0.5)]
    assert judge(compared(rows, odd)).first.fault == "checkpoint"
    assert judge(compared(rows), contradictions={"model.layers.0.o_proj"}).first.fault == "decision"
    assert judge(compared(rows)).first.fault == "load"


def test_slots_of_one_module_are_one_trouble_that_names_them():
    rows = [row("model.layers.0.qkv_proj", 0.9 if slot != "q" else 1e-5, 0.0, slot=slot) for slot in ("q", "k", "v")]
    assert names(compared(rows)) == ["model.layers.0.qkv_proj[k,v]"]


def test_a_comparison_is_read_back_as_it_was_written(tmp_path):
    said = compared([row("model", math.inf, None), *layers(2)], [weight("model.layers.1.o_proj.weight", 0.5, None)])
    said.write(tmp_path)
    assert read_comparison(tmp_path) == said
    assert read_comparison(tmp_path / "elsewhere") is None


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "[]",
        lambda text: text.replace('"schema": 1', '"schema": 99'),
        lambda text: text.replace('"layer": ', '"layer": "x", "was": ', 1),
        lambda text: text.replace('"shape": [4, 8]', '"shape": 4', 1),
        lambda text: text.replace('"roundoff"', '"was"', 1),
    ],
)
def test_a_saved_comparison_that_cannot_be_read_is_named(tmp_path, spoil):
    path = compared(layers(1)).write(tmp_path)
    path.write_text(spoil(path.read_text(encoding="utf-8")), encoding="utf-8")
    with pytest.raises(SessionError, match=r"comparison\.json: "):
        read_comparison(tmp_path)
