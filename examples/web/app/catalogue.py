"""Products and where they are kept."""

from __future__ import annotations

from dataclasses import dataclass

import psycopg2


@dataclass(frozen=True)
class Product:
    name: str
    cents: int
    id: int = 0

    @staticmethod
    def parse(record: object) -> Product:
        if (
            not isinstance(record, dict)
            or not isinstance(record.get("name"), str)
            or not record["name"].strip()
        ):
            raise ValueError("a product needs a name")
        cents = record.get("cents")
        if not isinstance(cents, int) or isinstance(cents, bool) or cents < 0:
            raise ValueError("a product needs a price in cents")
        return Product(record["name"].strip(), cents)

    def as_dict(self) -> dict[str, object]:
        return {"id": self.id, "name": self.name, "cents": self.cents}


class Catalogue:
    def __init__(self, url: str) -> None:
        self._url = url
        with self._connect() as connection, connection.cursor() as cursor:
            # Two workers start at once; the lock keeps them from both creating the table.
            cursor.execute("SELECT pg_advisory_xact_lock(1)")
            cursor.execute(
                "CREATE TABLE IF NOT EXISTS products (id serial PRIMARY KEY, name text NOT NULL, cents integer NOT NULL)"
            )

    def _connect(self):
        return psycopg2.connect(self._url, connect_timeout=5)

    def count(self) -> int:
        with self._connect() as connection, connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM products")
            return cursor.fetchone()[0]

    def all(self) -> list[Product]:
        with self._connect() as connection, connection.cursor() as cursor:
            cursor.execute("SELECT id, name, cents FROM products ORDER BY id")
            return [Product(name, cents, number) for number, name, cents in cursor.fetchall()]

    def add(self, product: Product) -> Product:
        with self._connect() as connection, connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO products (name, cents) VALUES (%s, %s) RETURNING id",
                (product.name, product.cents),
            )
            return Product(product.name, product.cents, cursor.fetchone()[0])
