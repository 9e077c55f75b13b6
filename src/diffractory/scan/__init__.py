"""4D-STEM scans, from the microscope's file to labels.

``reading`` files → ``inspection`` of what they hold → ``detection`` of peaks → ``mapping``;
``synthetic`` scans have a known truth. Raw frames are a :class:`~diffractory.scan.frame_scan.FrameScan`,
peaks a :class:`~diffractory.scan.bragg_scan.BraggScan`: all else makes or takes one of the two.
"""
