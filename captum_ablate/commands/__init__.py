"""The commands of ``captum-ablate``, one file each: ``add(commands)`` declares the options and what runs."""
