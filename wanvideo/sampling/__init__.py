"""Sampling: sigma schedules, solvers, guidance and the loop.

A run in five lines::

    schedule = build_schedule("unipc", 30, 5.0)
    first, end = schedule.select(start_step, end_step)
    plan = SamplingPlan(schedule, first, end, cfg_guidance(6.0, end - first), seed=seed)
    start = start_latent(shape, seed)
    result = sample(denoise, start.x.to(device), plan, generator=start.generator)

``schedules`` and ``sigmas`` make the noise levels, ``solver`` and ``solvers`` the steps, ``guidance`` and
``filters`` combine the model's passes, ``edits`` change the latent around a step, ``noise`` makes what a
run starts from, ``plan`` holds the decisions and ``sampler`` is the loop. Nothing here knows a model.
"""
