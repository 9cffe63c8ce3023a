"""The shortcut audit: can a free label be read off a cue that says nothing about what an image shows?"""
