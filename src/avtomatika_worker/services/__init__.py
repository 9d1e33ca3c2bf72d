"""The services of a worker: each one noun, each with one ``async def run()``, all under one supervisor."""
