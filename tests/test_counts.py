"""Every network of the lecture has exactly its parameters and multiply-adds, and what is said to be published agrees with them."""

import json
from functools import cache
from pathlib import Path

import pytest

from minidense import models, nn
from minidense.memory import freed_memory_kept
from minidense.models.published import CIFAR_COLUMNS, CLASSES, PUBLISHED, TABLE2, published
from minidense.summary import summarise

# Counted independently of this package: each network built in another library, or by hand from its paper's tables. The γ and β of
# vgg16_bn_drop_cifar were 8,448 there, without those behind its hidden layer; with them, 9,472, they agree with its parameters.
COUNTED = json.loads((Path(__file__).parent / "models.json").read_text(encoding="utf-8"))

VARIANTS = {
    "official lua code: 2k-channel stem": lambda name: {"stem_channels": 2 * int(name.split("_")[-1])},
    "official caffe: conv bias, BN without affine": lambda name: {"released": True},
    "projection shortcuts with BN, osmr": lambda name: {"shortcut": "projection"},
    "dropout 0.4": lambda name: {"dropout": 0.4},
}


def options_of(entry):
    return VARIANTS[entry["variant"]](entry["name"]) if entry["variant"] in VARIANTS else {}


@pytest.fixture(autouse=True, scope="module")
def memory():
    """What one network gives back is the next one's."""
    with freed_memory_kept():
        yield


@cache
def counted(name, classes, options=()):
    """What a network holds and does, in the names of models.json."""
    with nn.init.undrawn():
        model = models.create(name, classes=classes, **dict(options))
        found = summarise(model, models.about(name).image_shape, kept=False)
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    learning = [norm for norm in norms if not isinstance(norm, nn.PlainBatchNorm2d)]
    assert found.parameters == model.parameter_count()
    return {
        "params_exact": found.parameters,
        "macs_exact": found.multiply_adds,
        "convs": sum(isinstance(m, nn.Conv2d) for m in model.modules()),
        "linears": sum(isinstance(m, nn.Linear) for m in model.modules()),
        "bn_affine_params": sum(norm.weight.size + norm.bias.size for norm in learning),
        "bn_running_stats": sum(norm.running_mean.data.size + norm.running_var.data.size for norm in norms),
        "weights_only_params": sum(p.size for p in model.parameters() if p.ndim > 1),
    }


def test_the_table_holds_all_networks_of_the_lecture():
    assert len(COUNTED) == 92


@pytest.mark.parametrize("entry", COUNTED, ids=lambda e: f"{e['name']}-{e['variant'].split(':')[0]}-{e['classes']}")
def test_the_counts_are_exact(entry):
    found = counted(entry["name"], entry["classes"], tuple(options_of(entry).items()))
    assert found == {key: entry[key] for key in found}
    assert models.about(entry["name"]).image_shape == tuple(entry["dataset_input"])


@pytest.mark.parametrize("known", PUBLISHED, ids=lambda k: "-".join([k.name, *k.options]))
def test_what_is_published_is_what_is_counted(known):
    for classes, counts in known.counts.items():
        # dsn is the name, dsn_train the table's; the one computation does for both tests
        name = {"dsn": "dsn_train"}.get(known.name, known.name)
        found = counted(name, classes, tuple(known.options.items()))
        assert counts == (found["params_exact"], found["macs_exact"])


def test_every_name_is_published_in_order_and_every_entry_of_the_table_too():
    plain = [name for name in dict.fromkeys(known.name for known in PUBLISHED) if name in models.names()]
    assert plain == list(models.names())
    described = {(known.name, classes, *known.options.items()) for known in PUBLISHED for classes in known.counts}
    for entry in COUNTED:
        name = {"dsn_train": "dsn"}.get(entry["name"], entry["name"])
        assert (name, entry["classes"], *options_of(entry).items()) in described
    for name in models.names():
        assert models.about(name).classes in published(name).counts
    assert all(bool(known.errors) == bool(known.source) for known in PUBLISHED)


# -- Table 2 ---------------------------------------------------------------------------------------------------------


def test_table_2_is_the_paper_s():
    """By eye, cell for cell: 21 rows, and the sum of its 75 errors so that none slips later."""
    assert len(TABLE2) == 21
    cells = [error for row in TABLE2 for error in row.errors.values()]
    assert (len(cells), round(sum(cells), 2)) == (75, 1033.46)
    first, last = TABLE2[0], TABLE2[-1]
    assert (first.method, first.errors["C10"], "C100+" in first.errors) == ("Network in Network", 10.41, False)
    assert (last.depth, last.millions, last.errors) == (190, 25.6, {"C10+": 3.46, "C100+": 17.18})
    assert [row.starred for row in TABLE2 if row.starred] == [("C10", "C100")] * 2


@pytest.mark.parametrize("row", TABLE2, ids=lambda row: f"{row.method} {row.depth}")
def test_each_cell_of_table_2_names_a_network_that_can_be_built(row):
    assert set(row.models) == set(row.errors) <= set(CIFAR_COLUMNS)
    for column, (name, options) in row.models.items():
        found = published(name)
        assert column in found.errors
        with nn.init.undrawn():
            model = models.create(name, classes=CLASSES[column], **options)
        assert model.parameter_count() == found.counts[CLASSES[column]][0]


def test_parameters_printed_in_table_2_are_ours_but_for_those_that_have_a_note():
    """In millions to one digit, with 10 classes."""
    differing = {}
    for row in TABLE2:
        for name in {name for name, _ in row.models.values()}:
            ours = round(published(name).counts[10][0] / 1e6, 1)
            if row.millions is not None and ours != row.millions:
                differing[name] = (row.millions, ours)
    assert differing == {
        "fractalnet_c3_b5": (38.6, 33.7),
        "fractalnet_c3_b5_drop": (38.6, 33.7),
        "resnet152_stochdepth_svhn": (1.7, 2.4),
        "resnet1202_stochdepth": (10.2, 19.5),
        "preresnet1001": (10.2, 10.3),
    }
    assert all(published(name).note for name in differing)


def test_errors_of_table_2_are_those_of_its_networks():
    reported_by_others = {("resnet110", "C10+"): 6.41, ("resnet152_stochdepth_svhn", "SVHN"): 2.01}
    for row in TABLE2:
        for column, (name, _) in row.models.items():
            expected = published(name).errors[column]
            assert row.errors[column] in (expected, reported_by_others.get((name, column)))
