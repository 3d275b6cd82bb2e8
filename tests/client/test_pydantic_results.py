"""Pydantic's models as the type of a result. Pydantic is no dependency: it is recognised by its methods."""

from __future__ import annotations

import pytest

from enclave import EnclaveClient, ResultTypeError
from tests.support.messages import response, session
from tests.support.plane import ControlPlane

pydantic = pytest.importorskip("pydantic", reason="Pydantic comes with the extra mcp")


def answer_with(server: ControlPlane, body: object) -> None:
    server.answers(response(body))
    server.route("GET", "/sessions/s-1", response(session(phase="torn_down")))


class Model(pydantic.BaseModel):
    total: int
    parts: list[int] = pydantic.Field(default_factory=list)


@pytest.mark.parametrize(
    ("type_", "value", "expected"),
    [
        (Model, {"total": 285}, Model(total=285)),
        (list[Model], [{"total": 1, "parts": [2]}], [Model(total=1, parts=[2])]),
        (dict[str, Model | None], {"a": None, "b": {"total": 1}}, {"a": None, "b": Model(total=1)}),
    ],
)
async def test_a_model_of_pydantics_is_validated_by_itself(
    server: ControlPlane, client: EnclaveClient, type_, value, expected
):
    answer_with(server, {"exitCode": 0, "json": value, "stdout": "hi\n"})
    result = await client.result("s-1", type_)
    assert (result.value, result.stdout) == (expected, "hi\n")
    answer_with(server, {"exitCode": 3, "json": value})
    failed = await client.result("s-1", type_)
    assert (failed.exit_code, failed.value) == (3, expected)
    answer_with(server, {"exitCode": 3})
    assert (await client.result("s-1", type_)).exit_code == 3


@pytest.mark.parametrize(
    ("type_", "value", "says"),
    [
        (Model, {"total": "x"}, r"fit Model: .*integer.* - at `value\.total`"),
        (Model, {"total": 1, "parts": [1, None]}, r"integer.* - at `value\.parts\[1\]`"),
        (list[Model], [{"total": 1}, {}], r"[Rr]equired - at `value\[1\]\.total`"),
        (Model, [1], r"- at `value`"),
        (list[Model], {}, r"Expected `array`, got `object` - at `value`"),
        (Model, None, r"fit Model: the program did not call enclave\.result\(\.\.\.\), or gave it None"),
    ],
)
async def test_a_value_that_a_model_refuses_names_the_path_and_is_not_lost(
    server: ControlPlane, client: EnclaveClient, type_, value, says
):
    answer_with(server, {"exitCode": 0, "json": value})
    with pytest.raises(ResultTypeError, match=says) as caught:
        await client.result("s-1", type_)
    assert caught.value.result.value == value
