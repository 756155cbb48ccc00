"""Shared by tests of several packages.

``helpers``       images to work on, the real command, and its results
``weights``       weights of the network
``image_files``   images of every format, as other programs write them
``mutants``       damaged images, each reproducible from its seed and its number
``s3_server``     a real object store
``faulty_proxy``  an object store in trouble
``ray_head``      a real Ray that many tests share
``dying``         runs in this process that end at a chosen write
``deadly``        a ``sitecustomize`` that makes images deadly or slow in every worker of a run
``kernels``       compiles them before the suite
``lowest``        the lowest versions that the package declares, for ``make lowest``
"""
