"""Against a real PostgreSQL: the pipeline's `integration` stage starts one as a service."""

import os

import pytest
from shop import create_app

pytestmark = pytest.mark.skipif(
    "DATABASE_URL" not in os.environ, reason="needs a database (stage `integration`)"
)


@pytest.fixture
def client():
    return create_app().test_client()


def test_a_product_that_was_added_is_listed(client):
    before = client.get("/health").get_json()["products"]
    answer = client.post("/products", json={"name": "tea", "cents": 250})
    assert answer.status_code == 201
    assert answer.get_json() in client.get("/products").get_json()
    assert client.get("/health").get_json()["products"] == before + 1


def test_a_bad_product_is_a_bad_request(client):
    assert client.post("/products", json={"name": "tea"}).status_code == 400
