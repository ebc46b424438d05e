"""A small shop: products in PostgreSQL behind a Flask application."""

from __future__ import annotations

import os

from flask import Flask, abort, jsonify, request
from shop.catalogue import Catalogue, Product


def create_app(catalogue: Catalogue | None = None) -> Flask:
    app = Flask(__name__)
    shelf = catalogue or Catalogue(os.environ["DATABASE_URL"])

    @app.get("/health")
    def health():
        return jsonify(status="ok", products=shelf.count())

    @app.get("/products")
    def products():
        return jsonify([product.as_dict() for product in shelf.all()])

    @app.post("/products")
    def add():
        try:
            product = Product.parse(request.get_json(force=True))
        except ValueError as error:
            abort(400, description=str(error))
        return jsonify(shelf.add(product).as_dict()), 201

    return app
