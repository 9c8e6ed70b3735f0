"""Durable workflows on PostgreSQL: see docs/explanation/architecture.md."""
