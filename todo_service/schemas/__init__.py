"""The shapes of requests and answers, as marshmallow schemas: the contract, and the source of the documentation."""
