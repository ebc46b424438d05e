"""Pure: no database."""

import pytest
from shop.catalogue import Product


def test_a_name_is_trimmed():
    assert Product.parse({"name": " tea ", "cents": 250}) == Product("tea", 250)


@pytest.mark.parametrize(
    "record",
    [{}, {"name": ""}, {"name": "tea"}, {"name": "tea", "cents": -1}, {"name": "tea", "cents": True}, []],
)
def test_half_a_product_is_refused(record):
    with pytest.raises(ValueError, match="a product needs"):
        Product.parse(record)
