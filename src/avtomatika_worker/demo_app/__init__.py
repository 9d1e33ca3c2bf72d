"""The example behind ``worker demo``: a worker whose skills do real work on real input.

`app` is what a user would write; `pictures`, `text` and `primes` know nothing about workers.
"""
