"""4D-STEM scans, from the microscope's file to labels.

``reading`` files → ``inspection`` of what they hold → ``detection`` of peaks → ``mapping``;
``synthetic`` scans have a known truth. Raw frames are a :class:`~diffractory.scan.frame_scan.FrameScan`,
peaks a :class:`~diffractory.scan.bragg_scan.BraggScan`: all else makes or takes one of the two.

Here, beside the rooms, stand these two alone. Never: physics, training, figures, where work runs: it offers
functions of one block of frames or positions. A room imports those before it in this order, never one after
it (import-linter checks it), and below them all ``learning``, ``patterns``, ``crystals``, of ``dataset``
what writes Bragg vectors, and the foundation.
"""
