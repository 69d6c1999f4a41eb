"""What a session model has learnt of one tenant's items is nothing to items of another's that are called the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from matchcut.server.session import OnnxSession
from support import session_models
from support.user_world import ENCODER, World


def test_ids_are_known_to_their_own_tenant_only(tmp_path: Path) -> None:
    session_models.write(tmp_path, ENCODER, ids=["film"], toml={"tenant": "a"})
    model = OnnxSession(tmp_path, ENCODER)
    assert model.tenant == "a"
    world = World()
    world.put("film", tenant="a")
    world.put("film", tenant="b")
    world.put("stranger", tenant="b")
    galleries = world.galleries(model)
    (learnt,) = galleries.gallery("a").vectors(["film"])[1]
    (unknown,) = galleries.gallery("b").vectors(["film"])[1]
    assert not np.allclose(learnt, unknown)
    content = world.catalog.get("b", "film")
    assert content is not None
    assert np.allclose(unknown, galleries.project(content.segments[0].vector[np.newaxis])[0], atol=1e-6)
    world.close()
    model.close()


def test_without_a_tenant_in_its_description_a_model_is_the_default_tenants(tmp_path: Path) -> None:
    session_models.write(tmp_path, ENCODER, ids=["film"])
    model = OnnxSession(tmp_path, ENCODER)
    assert model.tenant == ""
    model.close()
