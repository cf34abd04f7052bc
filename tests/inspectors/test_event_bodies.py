"""Event bodies: made quickly, and as strictly as the dataclasses they are."""

from dataclasses import FrozenInstanceError, fields

import pytest

from inspectors.probe.events import KINDS, LoaderCalled


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.kind)
def test_a_body_made_of_nothing_has_every_field_at_its_default(kind):
    assert vars(kind()) == {one.name: one.default for one in fields(kind)}


def test_a_body_takes_its_fields_by_place_and_by_name():
    body = LoaderCalled("a.weight", "b.weight", shard_id="'q'", expert_id=3)
    assert (body.checkpoint_name, body.parameter, body.shard_id, body.expert_id) == ("a.weight", "b.weight", "'q'", 3)
    assert body == LoaderCalled(checkpoint_name="a.weight", parameter="b.weight", shard_id="'q'", expert_id=3)
    assert body != LoaderCalled("a.weight", "b.weight")


def test_a_field_that_a_kind_does_not_have_is_named():
    with pytest.raises(TypeError, match=r"LoaderCalled has the fields checkpoint_name, .* not \['shardid'\]"):
        LoaderCalled(shardid="'q'")
    with pytest.raises(TypeError, match="LoaderCalled has the fields"):
        LoaderCalled(*range(50))


def test_a_body_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        LoaderCalled().parameter = "other"
