"""TEMPORARY until the accounting branch is merged."""


def epsilon(accountant, *, sampling_rate, noise_multiplier, steps, delta):
    import warnings

    from opacus.accountants.analysis import rdp

    if noise_multiplier == 0:
        return float("inf")
    orders = [1 + x / 10 for x in range(1, 100)] + list(range(12, 512))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        r = rdp.compute_rdp(
            q=sampling_rate, noise_multiplier=noise_multiplier, steps=steps, orders=orders
        )
        return float(rdp.get_privacy_spent(orders=orders, rdp=r, delta=delta)[0])


def noise_multiplier_for(accountant, *, epsilon: float, delta, sampling_rate, steps):
    lo, hi = 0.3, 100.0
    while hi - lo > 1e-3:
        m = (lo + hi) / 2
        lo, hi = (
            (lo, m)
            if globals()["epsilon"](
                accountant,
                sampling_rate=sampling_rate,
                noise_multiplier=m,
                steps=steps,
                delta=delta,
            )
            <= epsilon
            else (m, hi)
        )
    return hi


def steps_for(accountant, *, epsilon, delta, sampling_rate, noise_multiplier):
    lo, hi = 0, 100000
    while hi - lo > 1:
        m = (lo + hi) // 2
        lo, hi = (
            (m, hi)
            if globals()["epsilon"](
                accountant,
                sampling_rate=sampling_rate,
                noise_multiplier=noise_multiplier,
                steps=m,
                delta=delta,
            )
            <= epsilon
            else (lo, m)
        )
    return lo
